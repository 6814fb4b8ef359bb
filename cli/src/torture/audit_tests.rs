use super::*;

/// A round of one producer, number 1, whose messages have the cells of their
/// own numbers, and consumers 10 and 11.
struct Story {
    cells: Vec<Option<Receipt>>,
    events: Vec<Event>,
    run: Run,
    deaths: Vec<Death>,
    delivers_again: bool,
    in_pieces: bool,
    flags: bool,
}

impl Story {
    /// The producer sent so many messages.
    fn of(done: u64) -> Story {
        Story {
            cells: vec![None; CHUNK as usize],
            events: Vec::new(),
            run: Run { incarnation: 1, base: 0, done, intent: done },
            deaths: Vec::new(),
            delivers_again: false,
            in_pieces: false,
            flags: true,
        }
    }

    fn at_least_once(self) -> Story {
        Story { delivers_again: true, ..self }
    }

    fn in_pieces(self) -> Story {
        Story { in_pieces: true, ..self }
    }

    /// The consumer received the message, having asked for it at one time and
    /// having it at another.
    fn received(mut self, message: u64, by: u64, entered: u64, returned: u64) -> Story {
        let receipt = Receipt { by, returned, entered, redelivered: false, copied: false };
        self.cells[message as usize] = Some(receipt);
        self
    }

    /// All but these were received by consumer 10, one after the other.
    fn all_but(mut self, missing: &[u64]) -> Story {
        for message in (0..self.run.intent).filter(|message| !missing.contains(message)) {
            self = self.received(message, 10, 100 * message + 1, 100 * message + 101);
        }
        self
    }

    /// The consumer received it although somebody else had.
    fn again(mut self, message: u64, by: u64, returned: u64, redelivered: bool) -> Story {
        let receipt = Receipt { by, returned, entered: returned - 50, redelivered, copied: false };
        let before = self.cells[message as usize].replace(receipt);
        self.events.push(Event { place: message, receipt, before });
        self
    }

    fn died(mut self, phase: Phase, held: Option<u64>, entered: u64, killed: u64) -> Story {
        self.deaths.push(Death {
            side: Side::Consumers,
            incarnation: 11,
            phase,
            held,
            copying: 0,
            entered,
            killed,
            gone: killed + 10,
        });
        self
    }

    /// Whoever died last was copying up to so many messages.
    fn copying(mut self, most: u64) -> Story {
        self.deaths.last_mut().unwrap().copying = most;
        self
    }

    /// What the audit makes of it.
    fn tally(&self) -> Tally {
        let cell = |place: u64| Ok(self.cells[place as usize]);
        let mut complaints = Vec::new();
        let tally = audit(
            &Evidence {
                chunks: &[Some((1, 0)), None],
                cell: &cell,
                events: &self.events,
                findings: &[],
                runs: &[self.run],
                deaths: &self.deaths,
                delivers_again: self.delivers_again,
                in_pieces: self.in_pieces,
                flags: self.flags,
            },
            &mut complaints,
        );
        let tally = tally.unwrap();
        assert_eq!(tally.violations(), complaints.len() as u64, "{complaints:?}");
        tally
    }
}

#[test]
fn everything_arrived_is_clean() {
    let tally = Story::of(10).all_but(&[]).tally();
    assert_eq!(tally, Tally { sent: 10, received: 10, ..Tally::default() });
}

#[test]
fn a_missing_message_needs_a_death_in_its_time() {
    let story = || Story::of(10).all_but(&[5]);
    assert_eq!(story().tally().missing, 1);
    // Message 4 was asked for at 401, message 6 was there at 701.
    let explained = |entered, killed| {
        story().died(Phase::Taking, None, entered, killed).tally().lost_with_owner == 1
    };
    assert!(explained(0, 500) && explained(600, 650) && explained(0, 10_000));
    assert!(!explained(0, 100), "it died before message 4 was asked for");
    assert!(!explained(701, 800), "it began when message 6 was there already");
    assert_eq!(story().died(Phase::Outside, None, 0, 500).tally().missing, 1);
}

#[test]
fn one_that_died_outside_explains_one_message_that_came_in_pieces() {
    let story = |missing: &[u64]| {
        Story::of(10).all_but(missing).at_least_once().in_pieces().died(
            Phase::Outside,
            None,
            0,
            500,
        )
    };
    assert_eq!(story(&[5]).tally().lost_with_owner, 1);
    assert_eq!(story(&[8]).tally().missing, 1, "nobody died in its time");
    // What it had been copying before is entered.
    let Tally { missing, lost_with_owner, .. } = story(&[5, 6]).copying(2).tally();
    assert_eq!((missing, lost_with_owner), (1, 1));
}

#[test]
fn one_death_explains_one_message_or_a_batch() {
    let story = || Story::of(10).all_but(&[5, 6]).died(Phase::Taking, None, 0, 500);
    let Tally { missing, lost_with_owner, .. } = story().tally();
    assert_eq!((missing, lost_with_owner), (1, 1));
    let Tally { missing, lost_with_owner, .. } = story().copying(2).tally();
    assert_eq!((missing, lost_with_owner), (0, 2));
}

#[test]
fn deaths_are_assigned_as_well_as_can_be() {
    // The first could explain both, the second only message 2.
    let story = Story::of(10).all_but(&[2, 8]).died(Phase::Taking, None, 0, 10_000).died(
        Phase::Taking,
        None,
        0,
        250,
    );
    assert_eq!(story.tally().lost_with_owner, 2);
}

#[test]
fn one_that_held_a_message_explains_just_that() {
    let story = |held| Story::of(10).all_but(&[5]).died(Phase::Holding, Some(held), 0, 500).tally();
    assert_eq!(story(5).lost_with_owner, 1);
    assert_eq!(story(6).missing, 1);
}

#[test]
fn at_least_once_nothing_is_missing_but_what_was_copied_out() {
    let story = || Story::of(10).all_but(&[5]).at_least_once().died(Phase::Taking, None, 0, 500);
    assert_eq!(story().tally().missing, 1);
    assert_eq!(story().copying(1).tally().lost_with_owner, 1);
}

#[test]
fn messages_in_doubt_arrive_as_far_as_they_were_sent() {
    let mut story = Story::of(10).all_but(&[]);
    story.run.done = 6;
    let Tally { sent, in_doubt, in_doubt_arrived, .. } = story.tally();
    assert_eq!((sent, in_doubt, in_doubt_arrived), (10, 4, 4));
    story.cells[8] = None;
    story.cells[9] = None;
    assert_eq!(story.tally().missing, 0);
    // One in the middle must have been sent.
    story.cells[6] = None;
    assert_eq!(story.tally().missing, 1);
}

#[test]
fn what_was_not_sent_is_forged() {
    assert_eq!(Story::of(10).all_but(&[]).received(10, 10, 1, 2000).tally().forged, 1);
}

#[test]
fn an_overtaken_message_is_found() {
    // Asked for when the later one was there, by another consumer or the same.
    for by in [10, 11] {
        let story = Story::of(2).received(0, 10, 200, 300).received(1, by, 50, 150);
        assert_eq!(story.tally().reorderings, 1);
    }
    // Two at a time may come by either order.
    let story = Story::of(2).received(0, 10, 100, 300).received(1, 11, 50, 150);
    assert_eq!(story.tally().reorderings, 0);
    // But not to one consumer, in a batch.
    let story = Story::of(2).received(0, 10, 100, 300).received(1, 10, 100, 150);
    assert_eq!(story.tally().reorderings, 1);
}

#[test]
fn a_second_delivery_needs_a_death_with_it() {
    let story = || Story::of(10).all_but(&[]);
    for flagged in [false, true] {
        let tally = story().died(Phase::Holding, Some(5), 0, 2000).again(5, 10, 3000, flagged);
        assert_eq!(tally.tally().duplicates, 1, "at most once");
        let tally = tally.at_least_once().tally();
        assert_eq!((tally.duplicates == 0, tally.received_again == 1), (flagged, flagged));
    }
    let duplicates = |story: Story| story.again(5, 10, 3000, true).at_least_once().tally();
    assert_eq!(duplicates(story()).duplicates, 1);
    // Another message, and after the delivery.
    let other = duplicates(story().died(Phase::Releasing, Some(6), 0, 2000));
    assert_eq!(other.duplicates, 1);
    let later = duplicates(story().died(Phase::Releasing, Some(5), 0, 4000));
    assert_eq!(later.duplicates, 1);
}

#[test]
fn what_the_dead_held_must_come_again() {
    let story = || Story::of(10).all_but(&[]).at_least_once();
    let died = |story: Story| story.died(Phase::Holding, Some(5), 0, 2000);
    assert_eq!(died(story()).tally().not_redelivered, 1);
    assert_eq!(died(story()).again(5, 10, 3000, true).tally().violations(), 0);
    // It may have been released.
    assert_eq!(story().died(Phase::Releasing, Some(5), 0, 2000).tally().violations(), 0);
    // It may have come to one that died with a copy of it.
    let copied = died(story()).died(Phase::Taking, None, 2100, 2500).copying(1);
    assert_eq!(copied.tally().violations(), 0);
}

#[test]
fn a_late_copy_needs_a_death() {
    let late = || {
        let mut story = Story::of(10).all_but(&[]).at_least_once();
        let receipt = story.cells[5].as_mut().unwrap();
        (receipt.entered, receipt.returned, receipt.copied) = (5000, 5100, true);
        story
    };
    assert_eq!(late().tally().duplicates, 1);
    assert_eq!(late().died(Phase::Taking, None, 0, 600).tally().received_again, 1);
}

#[test]
fn a_pipe_delivers_again_without_a_flag() {
    let pipe = |story: Story| Story { flags: false, ..story.at_least_once() }.tally();
    let story = || Story::of(10).all_but(&[9]).received(9, 11, 950, 1000);
    let again = story().died(Phase::Holding, Some(9), 0, 2000).again(9, 12, 3000, false);
    assert_eq!(pipe(again).violations(), 0);
    assert_eq!(pipe(story().again(9, 12, 3000, false)).duplicates, 1);
    // It died before it entered the message.
    let fresh = Story::of(10).all_but(&[9]).died(Phase::Holding, Some(9), 0, 2000);
    assert_eq!(pipe(fresh.received(9, 12, 2500, 3000)).violations(), 0);
}
