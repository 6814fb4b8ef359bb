"""Victims for the torture whose queue can only be inherited: Python's own
multiprocessing.Queue, and faster_fifo's.

Started by the program `comparison torture` with the queue's name and the
ledger's path. Reads commands, a line each, and answers each with a line:

    start producer|consumer NUMBER LIFE     -> the process number
    ended                                   -> "PID:STATUS ..." of those that ended

What the ledger holds, and what a message is, is told in `src/torture/ledger.rs`.
"""

import ctypes
import mmap
import multiprocessing
import os
import queue
import signal
import struct
import sys

WORDS = 8
LIVES = 1 << 14
MESSAGES = 1 << 22
MAPS = (256 + 2 * LIVES) * 8
MAP = MESSAGES // 8
MASK = (1 << 64) - 1
PATIENCE = 0.1
SLOTS = 1024
PR_SET_PDEATHSIG = 1


def message(life, number):
    """All words follow from the first two; the last is the sum of the others."""
    base = life * 0x9E3779B97F4A7C15 + number * 0xD1B54A32D192ED03
    words = [life, number] + [(base + i) & MASK for i in range(2, WORDS - 1)]
    words.append(sum(words) & MASK)
    return struct.pack("=8Q", *words)


class Ledger:
    def __init__(self, path):
        with open(path, "r+b") as file:
            self.bytes = mmap.mmap(file.fileno(), 0)
        # Stores through this view are stores of whole words.
        self.words = memoryview(self.bytes)[:MAPS].cast("Q")

    def received(self, consumer, data):
        counts = 16 + 8 * consumer
        words = self.words
        if len(data) != 8 * WORDS:
            words[counts + 1] += 1
            return
        life, number = struct.unpack_from("=2Q", data)
        if life >= LIVES or number >= MESSAGES or data != message(life, number):
            words[counts + 1] += 1
            return
        at = MAPS + (consumer * LIVES + life) * MAP + number // 8
        bit, before = 1 << number % 8, self.bytes[at]
        if before & bit:
            words[counts + 2] += 1
        self.bytes[at] = before | bit
        words[counts] += 1


def die_with(parent):
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def produce(channel, ledger, number, life, parent):
    die_with(parent)
    words = ledger.words
    count, begun, sent = 0, 256 + 2 * life, 257 + 2 * life
    while count < MESSAGES and not words[0]:
        data = message(life, count)
        words[begun] = count + 1
        while True:
            try:
                channel.put(data, True, PATIENCE)
                break
            except queue.Full:
                if words[0]:
                    os._exit(0)
        count += 1
        words[sent] = count
        words[8 + number] = life + 1


def consume(channel, ledger, number, life, parent):
    die_with(parent)
    words = ledger.words
    while not words[1]:
        try:
            ledger.received(number, channel.get(True, PATIENCE))
        except queue.Empty:
            pass
        words[10 + number] = life + 1


def main(kind, path):
    context = multiprocessing.get_context("fork")
    if kind == "multiprocessing":
        channel = context.Queue(SLOTS)
    else:
        import faster_fifo
        import faster_fifo_reduction  # noqa: F401 (registers what it needs)

        # A pickled message takes a little more than its 64 bytes.
        channel = faster_fifo.Queue(max_size_bytes=SLOTS * 128)
    ledger = Ledger(path)
    parent = os.getpid()
    alive = []
    for line in sys.stdin:
        command = line.split()
        if command[0] == "start":
            work = produce if command[1] == "producer" else consume
            arguments = (channel, ledger, int(command[2]), int(command[3]), parent)
            process = context.Process(target=work, args=arguments)
            process.start()
            alive.append(process)
            print(process.pid, flush=True)
        else:
            ended = [process for process in alive if process.exitcode is not None]
            alive = [process for process in alive if process not in ended]
            print(*(f"{process.pid}:{process.exitcode}" for process in ended), flush=True)
    for process in alive:
        process.kill()
    # Not by sys.exit, which would wait for the queue's threads.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
