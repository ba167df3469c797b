"""The lab's guest: Debian's cloud kernel, busybox, and a shell script as its init.

It boots without a boot loader or a root file system, under QEMU's own translation (TCG), in about two seconds, says
`outlast-guest NAME ready boot=<boot id> up=<seconds since its boot>` on its serial port, and from then on once a second

- prints `beat N`: it executes;
- appends a record to its disk (format and meaning in disklog.py): it writes.

These are two loops, so that a guest whose disk hangs still shows that it executes. A third one answers, as QEMU's guest
agent does, to what libvirt asks to find out whether it is there, and prints `guest agent asked up=<seconds>` when it first
was. Two commands are ours: `guest-lab-hang` stops its kernel for good, as a panic does (no beat, no record, no answer,
until it is reset), and `guest-lab-mute` stops the answers alone. A *busy* guest also uses its processor and rewrites its
memory all the time, finds in it what it wrote some laps ago or prints `memory differs`, prints `lap N`, and writes ten
records a second.

The power button (virsh shutdown) switches it off two seconds later, because guests with services take their time. Writes
bypass the guest's cache, and QEMU opens the disk with cache='none', so a record that was written is on the datastore.

The kernel comes out of Debian's package by `apt-get download` and `dpkg -x`, the initramfs is made with cpio; both are
kept in the cache, and made anew when the init below or the module list changes.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
import uuid as uuids
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from outlast.lab.disklog import RECORD_SIZE
from outlast.lab.errors import LabError
from outlast.lab.layout import Layout, datastore_path

KERNEL_PACKAGE = "linux-image-cloud-amd64"
BUSYBOX = Path("/bin/busybox")
DISK_SIZE = 8 << 20
MEMORY_MIB = 80
GUEST_LOG_DIRECTORY = Path("/var/log/outlast-guest")
_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "button", "evdev")
# Without entropy of its own a boot id might repeat; the processor's random instruction gives it. The rest saves boot time.
_KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=3 panic=1 random.trust_cpu=1"
    " mitigations=off no_timer_check tsc=reliable ipv6.disable=1 nokaslr"
)

_CPU = """\
<cpu mode='custom' match='exact' check='none'>
    <model fallback='forbid'>qemu64</model>
    <feature policy='require' name='rdrand'/>
  </cpu>"""

_INIT = r"""#!/bin/busybox sh
# PID 1 of a lab guest. outlast_name and outlast_busy come from the kernel's command line.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done < /modules/order
boot=$(cat /proc/sys/kernel/random/boot_id)

# Time that passes without a process of its own for it: sleep would be a fork.
mkfifo /nothing
exec 9<>/nothing
pause() { read -r -t "$1" nothing <&9; }
second() { pause 1; }

up() { read -r seconds idle < /proc/uptime && echo "$seconds"; }

beats() {
    beat=0
    while :; do
        beat=$((beat + 1))
        echo "beat $beat"
        second
    done
}

at() { dd if=/dev/vda of=/record bs=512 skip="$1" count=1 iflag=direct 2>/dev/null && tr -d '\0' < /record; }

records() {
    size=$(($(cat /sys/block/vda/size)))
    # Records are lines, and free ones hold only zeros: their number is the first free place, unless there are holes.
    place=$(dd if=/dev/vda bs=1M iflag=direct 2>/dev/null | tr -d '\0' | wc -l)
    counter=1
    while [ "$place" -lt "$size" ]; do
        mine="outlast $boot $counter"
        if ! found=$(at "$place"); then
            echo "read failed at $place"
            second
            continue
        elif [ -z "$found" ]; then
            if ! printf '%-511s\n' "$mine" |
                dd of=/dev/vda bs=512 seek="$place" count=1 oflag=direct conv=notrunc 2>/dev/null; then
                # Whether it was written is not known: the next turn looks.
                echo "write failed at $place"
                second
                continue
            fi
        elif [ "$found" != "$(printf '%-511s' "$mine")" ]; then
            echo "foreign record at $place:" $found
            place=$((place + 1))
            continue
        fi
        place=$((place + 1))
        counter=$((counter + 1))
        if [ "$outlast_busy" ]; then pause 0.1; else second; fi
    done
    echo "disk full"
}

# Eight files in memory are written in turn, and each is looked at before its turn comes again.
laps() {
    lap=0
    while :; do
        lap=$((lap + 1))
        file=/memory.$((lap % 8))
        if [ -e "$file" ] && [ "$(md5sum < "$file")" != "$(cat "$file.sum")" ]; then
            echo "memory differs in lap $lap"
        fi
        yes "$boot $lap" | head -c 524288 > "$file"
        md5sum < "$file" > "$file.sum"
        echo "lap $lap"
        # Several of them are to leave each other, and their hosts, something of this machine.
        pause 0.1
    done
}

power_button() {
    for input in /sys/class/input/event*; do
        if [ "$(cat "$input/device/name")" = "Power Button" ]; then
            head -c 24 "/dev/input/${input##*/}" > /dev/null
            echo "power button"
            # A guest with services to end takes its time.
            sleep 2
            poweroff -f
        fi
    done
}

agent() {
    exec 3<>"$1"
    while :; do
        # Without a libvirt that listens, the channel reads as ended.
        if ! read -r line <&3; then second; continue; fi
        case $line in
        *guest-sync*)
            id=${line##*'"id"'}
            id=${id#*:}
            echo "{\"return\": ${id%%\}*}}" >&3
            ;;
        *guest-ping*)
            [ "$asked" ] || echo "guest agent asked up=$(up)"
            asked=yes
            echo '{"return": {}}' >&3
            ;;
        *guest-lab-mute*)
            echo '{"return": {}}' >&3
            while :; do second; done
            ;;
        *guest-lab-hang*)
            echo '{"return": {}}' >&3
            second
            echo 0 > /proc/sys/kernel/panic
            echo c > /proc/sysrq-trigger
            ;;
        # For a shutdown libvirt presses the power button then.
        *) echo '{"error": {"class": "CommandNotFound", "desc": "not known here"}}' >&3 ;;
        esac
    done
}

echo "outlast-guest $outlast_name ready boot=$boot up=$(up)"
for port in /dev/vport*; do
    [ -e "$port" ] && agent "$port" &
done
power_button &
records &
[ "$outlast_busy" ] && laps &
beats
"""


def build(layout: Layout) -> None:
    """Make the guest's kernel and initramfs if the cache lacks them. Raises LabError with the remedy."""
    if not BUSYBOX.exists():
        raise LabError(f"{BUSYBOX} is missing: install Debian's package busybox-static")
    directory = layout.kernel.parent
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        # Labs that share a cache may be made side by side.
        fcntl.flock(lock, fcntl.LOCK_EX)
        _build(layout, directory)


def _build(layout: Layout, directory: Path) -> None:
    recipe = hashlib.sha256(f"{_INIT}{_MODULES}".encode()).hexdigest()
    stamp = directory / "recipe"
    complete = layout.kernel.exists() and layout.initramfs.exists() and stamp.exists()
    if complete and stamp.read_text() == recipe:
        return
    package = directory / "package"
    if not list(package.glob("boot/vmlinuz-*")):
        _fetch_kernel(package)
    modules = next(package.glob("lib/modules/*"))
    with tempfile.TemporaryDirectory(dir=directory) as work:
        _pack(Path(work), modules, layout.initramfs)
    shutil.copyfile(next(package.glob("boot/vmlinuz-*")), layout.kernel)
    stamp.write_text(recipe)


def _run(argv: list[str], cwd: Path, why: str) -> str:
    try:
        done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        raise LabError(f"{why} needs the program {argv[0]}: install it") from None
    if done.returncode != 0:
        raise LabError(f"{why} failed: {' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _fetch_kernel(package: Path) -> None:
    """Unpack the newest cloud kernel that Debian has into `package`."""
    why = "fetching the guest's kernel"
    with tempfile.TemporaryDirectory(dir=package.parent) as work:
        depends = _run(["apt-cache", "depends", KERNEL_PACKAGE], Path(work), why)
        versions = re.findall(r"Depends: (linux-image-\S+-cloud-amd64)", depends)
        if not versions:
            raise LabError(
                f"{why} failed: apt knows no {KERNEL_PACKAGE}; run apt-get update, or copy a Debian cloud kernel "
                f"package's content to {package}"
            )
        _run(["apt-get", "download", versions[0]], Path(work), why)
        unpacked = Path(work) / "unpacked"
        _run(["dpkg", "-x", next(Path(work).glob("*.deb")).name, str(unpacked)], Path(work), why)
        shutil.rmtree(package, ignore_errors=True)
        unpacked.rename(package)


def _pack(work: Path, modules: Path, target: Path) -> None:
    """Put busybox, the init and the modules in an initramfs."""
    for name in ("bin", "proc", "sys", "dev", "modules"):
        (work / name).mkdir()
    shutil.copy(BUSYBOX, work / "bin" / "busybox")
    (work / "init").write_text(_INIT)
    (work / "init").chmod(0o755)
    files = {path.stem.replace("-", "_"): path for path in modules.rglob("*.ko")}
    order = _with_dependencies(files)
    for name in order:
        shutil.copyfile(files[name], work / "modules" / f"{name}.ko")
    (work / "modules" / "order").write_text("".join(f"{name}.ko\n" for name in order))
    names = "\n".join(sorted(str(path.relative_to(work)) for path in work.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"], cwd=work, input=names.encode(), check=False, capture_output=True
    )
    if archive.returncode != 0:
        raise LabError(f"making the guest's initramfs failed: cpio: {archive.stderr.decode().strip()}")
    part = target.with_suffix(".part")
    part.write_bytes(archive.stdout)
    part.rename(target)


def _with_dependencies(files: dict[str, Path]) -> list[str]:
    """The guest's modules and all that they need, in the order in which they load."""
    order: list[str] = []

    def add(name: str) -> None:
        # A module that the kernel has built in has no file.
        if name in order or name not in files:
            return
        match = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for needed in match[1].decode().split(",") if match else []:
            add(needed.replace("-", "_"))
        order.append(name)

    for name in _MODULES:
        add(name)
    return order


def make_disk(layout: Layout, vm: str, datastore: str) -> Path:
    """Make a VM's empty disk on a datastore's backing directory."""
    disk = layout.disk(vm, datastore)
    disk.parent.mkdir(parents=True, exist_ok=True)
    # Written out, not sparse: a write then allocates nothing and takes the same time on a full datastore.
    disk.write_bytes(bytes(DISK_SIZE // RECORD_SIZE * RECORD_SIZE))
    return disk


def vm_uuid(vm: str) -> str:
    """The UUID of the lab's VM of this name: always the same, so that a lab can be compared with the one before."""
    return str(uuids.uuid5(uuids.NAMESPACE_DNS, f"{vm}.lab.outlast"))


def domain_xml(
    layout: Layout,
    name: str,
    uuid: str,
    datastore: str,
    *,
    memory_mib: int = MEMORY_MIB,
    metadata: str = "",
    disk_of: str = "",
    busy: bool = False,
) -> str:
    """The definition, for libvirt, of a guest whose disk lies on `datastore`.

    `metadata` is XML that goes into the domain's <metadata> as it is; `disk_of`: the guest whose disk it has instead of
    one of its own. A `busy` guest works all the time.
    """
    disk = datastore_path(datastore) / "disks" / f"{disk_of or name}.raw"
    log = GUEST_LOG_DIRECTORY / f"{name}.log"
    return f"""<domain type='qemu'>
  <name>{escape(name)}</name>
  <uuid>{uuid}</uuid>
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{escape(str(layout.kernel))}</kernel>
    <initrd>{escape(str(layout.initramfs))}</initrd>
    <cmdline>{escape(f"{_KERNEL_ARGUMENTS} outlast_name={name}{' outlast_busy=yes' if busy else ''}")}</cmdline>
  </os>
  <features><acpi/></features>
  {_CPU}
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw' cache='none' io='threads'/>
      <source file={quoteattr(str(disk))}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='file'>
      <source path={quoteattr(str(log))} append='on'/>
      <target port='0'/>
    </serial>
    <console type='file'>
      <source path={quoteattr(str(log))} append='on'/>
      <target type='serial' port='0'/>
    </console>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <input type='mouse' bus='ps2'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""
