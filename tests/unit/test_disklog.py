"""The disk log tells a clean restart from two instances at once."""

from pathlib import Path

from outlast.lab.disklog import RECORD_SIZE, Record, check, judge, parse, read_log

A = "aaaaaaaa-0000-4000-8000-000000000001"
B = "bbbbbbbb-0000-4000-8000-000000000002"


def record(boot_id: str, counter: int) -> bytes:
    return f"outlast {boot_id} {counter}".encode().ljust(RECORD_SIZE - 1) + b"\n"


def run(boot_id: str, first: int, last: int) -> list[Record]:
    return [Record(boot_id, counter) for counter in range(first, last + 1)]


def test_restart_is_clean() -> None:
    assert judge(run(A, 1, 3) + run(B, 1, 2)) == []


def test_an_empty_disk_is_clean() -> None:
    assert parse(bytes(8 * RECORD_SIZE)) == ([], [])
    assert judge([]) == []


def test_alternating_boots_are_two_instances() -> None:
    problems = judge(run(A, 1, 2) + run(B, 1, 1) + run(A, 3, 3))
    assert len(problems) == 1
    assert "two instances at once" in problems[0]


def test_a_gap_in_the_counters_is_a_lost_record() -> None:
    problems = judge(run(A, 1, 2) + run(A, 4, 5))
    assert problems == [f"boot {A} goes from counter 2 to 4 at record 2"]


def test_a_repeated_counter_is_a_problem() -> None:
    assert judge(run(A, 1, 2) + run(A, 2, 2)) == [f"boot {A} goes from counter 2 to 2 at record 2"]


def test_a_boot_that_begins_late_was_written_over() -> None:
    assert "begins with counter 2" in judge(run(A, 1, 1) + run(B, 2, 3))[0]


def test_reading_a_disk(tmp_path: Path) -> None:
    disk = tmp_path / "vm.raw"
    disk.write_bytes(record(A, 1) + record(A, 2) + record(B, 1) + bytes(5 * RECORD_SIZE))
    assert read_log(disk) == [*run(A, 1, 2), *run(B, 1, 1)]
    assert check(disk) == []


def test_a_hole_and_a_torn_record_are_named(tmp_path: Path) -> None:
    disk = tmp_path / "vm.raw"
    disk.write_bytes(record(A, 1) + bytes(RECORD_SIZE) + record(A, 2) + record(A, 3)[:300].ljust(RECORD_SIZE, b"\0"))
    problems = check(disk)
    assert len(problems) == 2
    assert any("record 1 is free although record 2 is used" in problem for problem in problems)
    assert any("record 3 is torn" in problem for problem in problems)
