from forwards.engine.states import Counters, State, Status, may_follow


def test_staying_in_a_state_is_always_allowed() -> None:
    assert all(may_follow(state, state) for state in State)


def test_a_stopped_forward_can_only_start() -> None:
    assert [state for state in State if state is not State.STOPPED and may_follow(State.STOPPED, state)] == [
        State.STARTING
    ]


def test_every_running_state_may_be_stopped_and_none_jumps_to_stopped() -> None:
    running = set(State) - {State.STOPPED, State.STOPPING}
    assert all(may_follow(state, State.STOPPING) for state in running)
    assert not any(may_follow(state, State.STOPPED) for state in running)


def test_what_stops_ends_stopped_or_starts_anew() -> None:
    assert {state for state in State if may_follow(State.STOPPING, state)} == {
        State.STOPPING,
        State.STOPPED,
        State.STARTING,
    }


def test_counters_alone_make_no_new_status() -> None:
    assert Status(1, 0, State.LISTENING, counters=Counters(1)) == Status(1, 0, State.LISTENING, counters=Counters(2))
