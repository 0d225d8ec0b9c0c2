"""System calls that could lead out, in every way that they can be made; privileges that must not come back."""

from __future__ import annotations

import pytest
from tests.security.stage import Stage

REFUSED = {"EPERM", "ENOSYS"}
# x86-64 numbers (asm/unistd_64.h). Arguments are what the call would need to go on to its check of rights.
CALLS: dict[str, list[object]] = {
    "mount": [165, "none", "/tmp", "tmpfs", 0, 0],
    "umount2": [166, "/proc", 2],
    "pivot_root": [155, "/", "/tmp"],
    "chroot": [161, "/tmp"],
    "swapon": [167, "/tmp/x", 0],
    "swapoff": [168, "/tmp/x"],
    "reboot": [169, -18751827, 672274793, 0x1234567, 0],
    "sethostname": [170, "owned", 5],
    "setdomainname": [171, "owned", 5],
    "iopl": [172, 3],
    "ioperm": [173, 0, 1024, 1],
    "init_module": [175, "x", 1, ""],
    "delete_module": [176, "x", 0],
    "finit_module": [313, 0, "", 0],
    "quotactl": [179, 0, "/dev/vda", 0, 0],
    "acct": [163, "/tmp/x"],
    "settimeofday": [164, 0, 0],
    "clock_settime": [227, 0, 0],
    "adjtimex": [159, 0],
    "clock_adjtime": [305, 0, 0],
    "add_key": [248, "user", "x", "y", 1, -3],
    "request_key": [249, "user", "x", "", 0],
    "keyctl": [250, 0, -3, 1],
    "ptrace": [101, 0, 0, 0, 0],
    "ptrace_attach": [101, 16, 1, 0, 0],
    "process_vm_readv": [310, 1, 0, 0, 0, 0, 0],
    "process_vm_writev": [311, 1, 0, 0, 0, 0, 0],
    "kcmp": [312, 1, 1, 0, 0, 0],
    "pidfd_getfd": [438, 3, 0, 0],
    "process_madvise": [440, 3, 0, 0, 4, 0],
    "bpf": [321, 5, 0, 0],
    "perf_event_open": [298, 0, 0, -1, -1, 0],
    "userfaultfd": [323, 0],
    "io_uring_setup": [425, 8, 0],
    "io_uring_enter": [426, 3, 0, 0, 0, 0],
    "io_uring_register": [427, 3, 0, 0, 0],
    "io_setup": [206, 8, 0],
    "open_by_handle_at": [304, -100, 0, 0],
    "name_to_handle_at": [303, -100, "/", 0, 0, 0],
    "fanotify_init": [300, 0, 0],
    "open_tree": [428, -100, "/", 1],
    "move_mount": [429, -100, "/", -100, "/tmp", 0],
    "fsopen": [430, "tmpfs", 0],
    "fsconfig": [431, 3, 0, 0, 0, 0],
    "fsmount": [432, 3, 0, 0],
    "fspick": [433, -100, "/", 0],
    "mount_setattr": [442, -100, "/", 0, 0, 0],
    "quotactl_fd": [443, 3, 0, 0, 0],
    "statmount": [457, 0, 0, 0, 0],
    "listmount": [458, 0, 0, 0, 0],
    "mknod": [133, "/tmp/n", 0o60666, 0xFE00],
    "mknodat": [259, -100, "/tmp/n", 0o60666, 0xFE00],
    "syslog": [103, 3, 0, 0],
    "vhangup": [153],
    "modify_ldt": [154, 0, 0, 0],
    "personality": [135, 0x0040000],
    "lookup_dcookie": [212, 0, 0, 0],
    "kexec_load": [246, 0, 0, 0, 0],
    "kexec_file_load": [320, 0, 0, 0, "", 0],
    "migrate_pages": [256, 1, 0, 0, 0],
    "move_pages": [279, 1, 0, 0, 0, 0, 0],
    "set_mempolicy": [238, 0, 0, 0],
    "vmsplice": [278, 1, 0, 0, 0],
    "shmget": [29, 0x1234, 4096, 0o1666],
    "semget": [64, 0x1234, 1, 0o1666],
    "msgget": [68, 0x1234, 0o1666],
    "mq_open": [240, "/q", 0o102, 0o666, 0],
    "seccomp": [317, 1, 0, 0],
    "memfd_secret": [447, 0],
    "unshare_files": [272, 0x400],
    "setns": [308, 3, 0],
    "uselib": [134, "/tmp/x"],
    "nfsservctl": [180, 0, 0, 0],
    "unknown": [470, 0, 0],
    "not_yet": [600, 0, 0],
}
GROUPS = {
    "mounts": "mount umount2 pivot_root chroot open_tree move_mount fsopen fsconfig fsmount fspick mount_setattr statmount "
    "listmount",
    "host": "swapon swapoff reboot sethostname setdomainname iopl ioperm init_module delete_module finit_module quotactl "
    "quotactl_fd acct settimeofday clock_settime adjtimex clock_adjtime syslog vhangup kexec_load kexec_file_load",
    "keys": "add_key request_key keyctl",
    "processes": "ptrace ptrace_attach process_vm_readv process_vm_writev kcmp pidfd_getfd process_madvise migrate_pages "
    "move_pages set_mempolicy",
    "surface": "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register io_setup vmsplice modify_ldt "
    "personality seccomp memfd_secret lookup_dcookie uselib nfsservctl unknown not_yet",
    "handles": "open_by_handle_at name_to_handle_at fanotify_init",
    "nodes": "mknod mknodat",
    "system_v": "shmget semget msgget mq_open",
    "namespaces": "unshare_files setns",
}


def test_every_call_is_tried() -> None:
    assert sorted(CALLS) == sorted(" ".join(GROUPS.values()).split())


@pytest.mark.parametrize("group", GROUPS)
def test_forbidden_system_calls(attacked: Stage, group: str) -> None:
    found = attacked.attack("kernel.calls", table={name: CALLS[name] for name in GROUPS[group].split()})
    assert {name: outcome for name, outcome in found.items() if outcome not in REFUSED} == {}


def test_unshare_makes_no_namespace(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.unshare_each").values()) == {"EPERM"}


def test_clone_makes_no_namespace(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.clone_each").values()) == {"EPERM"}


def test_clone3_makes_no_namespace(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.clone3_each").values()) == {"ENOSYS"}


def test_setns_joins_no_namespace(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.setns_each").values()) == {"EPERM"}


def test_the_x32_numbers_lead_nowhere(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.x32").values()) == {"ENOSYS"}


@pytest.mark.parametrize(("name", "number"), [("getpid", 20), ("mount", 21), ("ptrace", 26), ("unshare", 310)])
def test_the_32_bit_way_in_kills(attacked: Stage, name: str, number: int) -> None:
    assert attacked.attack("kernel.int80", number=number) == "signal 31", name  # SIGSYS


def test_high_bits_do_not_slip_past_the_filter(attacked: Stage) -> None:
    found = attacked.attack("kernel.vsyscall_and_upper_half")
    assert set(found.values()) <= REFUSED
    found = attacked.attack("kernel.clone_upper_half")
    assert set(found.values()) <= REFUSED


def test_no_input_can_be_pushed_to_a_terminal(attacked: Stage) -> None:
    assert set(attacked.attack("kernel.ioctls").values()) == {"EPERM"}


def test_only_three_address_families(attacked: Stage) -> None:
    found = attacked.attack("kernel.sockets")
    assert {int(family) for family, outcome in found.items() if outcome == "made"} == {1, 2, 10}
    assert {outcome for outcome in found.values() if outcome != "made"} == {"EAFNOSUPPORT"}


def test_no_raw_packets_and_no_rare_protocols(attacked: Stage) -> None:
    """Each protocol module that a socket could load is kernel code that nobody here needs."""
    found = attacked.attack("kernel.socket_kinds")
    assert {name: outcome for name, outcome in found.items() if outcome == "made"} == {}
    assert found["raw4"] in ("EPERM", "EPROTONOSUPPORT")
    assert found["vsock"] == found["packet"] == found["netlink"] == found["alg"] == "EAFNOSUPPORT"


def test_nobody_becomes_root(attacked: Stage) -> None:
    found = attacked.attack("kernel.become_root")
    assert found.pop("uid") >= 1000
    assert set(found.values()) == {"EPERM"}


def test_no_capability_is_left(attacked: Stage) -> None:
    found = attacked.attack("kernel.privileges")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[name][0], 16) == 0, name
    assert found["NoNewPrivs"] == ["1"]
    assert found["Seccomp"] == ["2"]
    assert found["Groups"] == []
    assert len(set(found["Uid"])) == 1


def test_no_privilege_comes_back(attacked: Stage) -> None:
    found = attacked.attack("kernel.raise_capabilities")
    assert {name: outcome for name, outcome in found.items() if isinstance(outcome, dict)} == {}


def test_set_user_id_programs_give_nothing(attacked: Stage) -> None:
    found = attacked.attack("kernel.setuid_file")
    uid = str(found["uid"])
    assert found["own"] == {"got": [uid]}
    assert found["chown"] == "EPERM"


def test_no_devices(attacked: Stage) -> None:
    found = attacked.attack("kernel.devices")
    assert found["mknod"] == found["mknod_char"] == "EPERM"
    assert found["present"] == ["fd", "full", "null", "random", "stderr", "stdin", "stdout", "urandom", "zero"]
    assert {found[name] for name in ("kmsg", "mem", "kvm", "fuse", "tty")} == {"ENOENT"}


def test_kernel_settings_are_read_only(attacked: Stage) -> None:
    found = attacked.attack("kernel.kernel_files")
    assert {path: outcome for path, outcome in found["writes"].items() if isinstance(outcome, dict)} == {}
    assert {path: outcome for path, outcome in found["reads"].items() if isinstance(outcome, dict)} == {}
    assert found["oom"] in ("EACCES", "EPERM")
    assert found["oom_zero"] in ("EACCES", "EPERM"), "an instance must go before the host's own processes"
