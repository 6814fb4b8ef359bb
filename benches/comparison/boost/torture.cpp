// Victims for the torture that use Boost.Interprocess's message_queue.
//
// Arguments: "make" NAME, which makes the queue; "remove" NAME; or
// producer|consumer NUMBER LIFE LEDGER NAME, a victim. What the ledger holds,
// and what a message is, is told in src/torture/ledger.rs.

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace ipc = boost::interprocess;

constexpr std::size_t WORDS = 8;
constexpr std::uint64_t LIVES = 1 << 14;
constexpr std::uint64_t MESSAGES = 1 << 22;
constexpr std::size_t SLOTS = 1024;
constexpr std::size_t MAPS = (256 + 2 * LIVES) * 8;
constexpr std::size_t MAP = MESSAGES / 8;

using Message = std::array<std::uint64_t, WORDS>;

static Message message(std::uint64_t life, std::uint64_t number) {
    Message all{life, number};
    for (std::size_t i = 2; i < WORDS - 1; ++i)
        all[i] = life * 0x9e3779b97f4a7c15u + number * 0xd1b54a32d192ed03u + i;
    for (std::size_t i = 0; i < WORDS - 1; ++i) all[WORDS - 1] += all[i];
    return all;
}

class Ledger {
    unsigned char* bytes;

  public:
    explicit Ledger(const char* path) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        struct stat status;
        if (fd < 0 || fstat(fd, &status) != 0) throw std::runtime_error("no ledger");
        void* start = mmap(nullptr, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (start == MAP_FAILED) throw std::runtime_error("ledger not mapped");
        bytes = static_cast<unsigned char*>(start);
    }

    std::uint64_t* word(std::size_t index) const {
        return reinterpret_cast<std::uint64_t*>(bytes) + index;
    }
    std::uint64_t get(std::size_t index) const {
        return __atomic_load_n(word(index), __ATOMIC_ACQUIRE);
    }
    // Release: pairs with the observer's load.
    void set(std::size_t index, std::uint64_t value) const {
        __atomic_store_n(word(index), value, __ATOMIC_RELEASE);
    }
    void add(std::size_t index) const { set(index, get(index) + 1); }

    void received(std::size_t consumer, const Message& arrived, std::size_t size) const {
        const std::size_t counts = 16 + 8 * consumer;
        const std::uint64_t life = arrived[0], number = arrived[1];
        if (size != sizeof arrived || life >= LIVES || number >= MESSAGES ||
            arrived != message(life, number)) {
            add(counts + 1);
            return;
        }
        unsigned char* byte = bytes + MAPS + (consumer * LIVES + life) * MAP + number / 8;
        const unsigned char bit = 1u << (number % 8);
        if (*byte & bit) add(counts + 2);
        *byte |= bit;
        add(counts);
    }
};

static boost::posix_time::ptime soon() {
    return boost::posix_time::microsec_clock::universal_time() +
           boost::posix_time::milliseconds(100);
}

static void produce(ipc::message_queue& queue, const Ledger& ledger, std::size_t number,
                    std::uint64_t life) {
    for (std::uint64_t count = 0; count < MESSAGES && !ledger.get(0); ++count) {
        const Message next = message(life, count);
        ledger.set(256 + 2 * life, count + 1);
        while (!queue.timed_send(&next, sizeof next, 0, soon()))
            if (ledger.get(0)) return;
        ledger.set(257 + 2 * life, count + 1);
        ledger.set(8 + number, life + 1);
    }
}

static void consume(ipc::message_queue& queue, const Ledger& ledger, std::size_t number,
                    std::uint64_t life) {
    while (!ledger.get(1)) {
        Message next{};
        ipc::message_queue::size_type size = 0;
        unsigned int priority = 0;
        if (queue.timed_receive(&next, sizeof next, size, priority, soon()))
            ledger.received(number, next, size);
        ledger.set(10 + number, life + 1);
    }
}

int main(int count, char** words) try {
    const std::string what = count > 1 ? words[1] : "";
    if (what == "version") {
        std::cout << BOOST_LIB_VERSION << std::endl;
        return 0;
    }
    if (what == "make" && count == 3) {
        ipc::message_queue(ipc::create_only, words[2], SLOTS, sizeof(Message));
        return 0;
    }
    if (what == "remove" && count == 3) return ipc::message_queue::remove(words[2]) ? 0 : 1;
    if (count != 6) {
        std::cerr << "see the head of torture.cpp" << std::endl;
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const std::size_t number = std::strtoul(words[2], nullptr, 10);
    const std::uint64_t life = std::strtoull(words[3], nullptr, 10);
    const Ledger ledger(words[4]);
    ipc::message_queue queue(ipc::open_only, words[5]);
    if (what == "producer")
        produce(queue, ledger, number, life);
    else
        consume(queue, ledger, number, life);
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
