"""What is free, from the accounts of a Linux that a test writes."""

from pathlib import Path

import pytest

from tasks.load import Meter

MBIT = 125_000


class Machine:
    """Files as Linux has them; a clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        self.write("proc/self/cgroup", "1:cpu:/\n0::/pod/worker\n")
        self.cpu(idle=1000, busy=1000)
        self.memory(total=8000, available=6000)
        self.network(eth0=(0, 0))

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def cpu(self, *, idle: int, busy: int) -> None:
        self.write("proc/stat", f"cpu  {busy} 0 0 {idle} 0 0 0 0 7 7\ncpu0 1 1 1 1\n")

    def memory(self, *, total: int, available: int) -> None:
        self.write("proc/meminfo", f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable:   {available} kB\n")

    def network(self, **interfaces: tuple[int, int]) -> None:
        lines = [f"  {name}: {came} 1 0 0 0 0 0 0 {went} 1 0 0 0 0 0 0" for name, (came, went) in interfaces.items()]
        self.write("proc/self/net/dev", "\n".join(["Inter-|", " face |", "lo: 99999999 0 0 0 0 0 0 0 9 0", *lines]))

    def group(self, name: str, text: str) -> None:
        self.write(f"sys/fs/cgroup/pod/worker/{name}", text)

    def meter(self) -> Meter:
        return Meter(clock=lambda: self.now, root=self.root)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_machine(machine: Machine) -> None:
    meter = machine.meter()
    machine.now += 5
    machine.cpu(idle=1300, busy=1100)
    machine.memory(total=8000, available=2000)
    machine.network(eth0=(5 * 100 * MBIT, 5 * 250 * MBIT))
    load = meter.load(1000)
    assert (load.cpu_free, load.memory_free, load.network_free) == (0.75, 0.25, 0.75)


def test_the_limits_of_a_control_group_go_before_the_machine(machine: Machine) -> None:
    machine.group("cpu.max", "200000 100000\n")  # two cores
    machine.group("cpu.stat", "usage_usec 1000000\nuser_usec 900000\n")
    machine.group("memory.max", "1000\n")
    machine.group("memory.current", "900\n")
    machine.group("memory.stat", "anon 100\ninactive_file 400\nactive_file 1\n")
    meter = machine.meter()
    machine.now += 5
    machine.group("cpu.stat", "usage_usec 7000000\nuser_usec 900000\n")  # six of ten seconds
    load = meter.load(1000)
    assert load.cpu_free == pytest.approx(0.4)
    assert load.memory_free == 0.5


def test_a_control_group_without_limits_is_the_machine(machine: Machine) -> None:
    machine.group("cpu.max", "max 100000\n")
    machine.group("memory.max", "max\n")
    meter = machine.meter()
    machine.now += 5
    machine.cpu(idle=1000, busy=1100)
    load = meter.load(1000)
    assert (load.cpu_free, load.memory_free) == (0, 0.75)


def test_within_a_second_nothing_is_read_again(machine: Machine) -> None:
    meter = machine.meter()
    machine.cpu(idle=1000, busy=9000)
    machine.now += 0.9
    assert meter.load(1000).cpu_free == 1
    machine.now += 0.2
    assert meter.load(1000).cpu_free == 0


def test_the_busiest_interface_counts_and_new_ones_are_no_burst(machine: Machine) -> None:
    meter = machine.meter()
    machine.now += 1
    machine.network(eth0=(10 * MBIT, 0), br0=(20 * MBIT, 0))
    assert meter.load(100).network_free == pytest.approx(0.9)
    machine.now += 1
    machine.network(eth0=(20 * MBIT, 0), br0=(60 * MBIT, 0))
    assert meter.load(100).network_free == pytest.approx(0.6)
    machine.now += 1
    machine.network(eth0=(20 * MBIT, 0), br0=(9999 * MBIT, 0))
    assert meter.load(100).network_free == 0


def test_what_cannot_be_read_counts_as_free(tmp_path: Path) -> None:
    now = 0.0
    meter = Meter(clock=lambda: now, root=tmp_path)
    now = 5.0
    load = meter.load(1000)
    assert (load.cpu_free, load.memory_free, load.network_free) == (1, 1, 1)


def test_counters_that_went_back_are_no_load(machine: Machine) -> None:
    machine.network(eth0=(500 * MBIT, 0))
    meter = machine.meter()
    machine.now += 5
    machine.cpu(idle=0, busy=0)
    machine.network(eth0=(0, 0))
    load = meter.load(1000)
    assert (load.cpu_free, load.network_free) == (1, 1)
