"""Records demo.pcap.zst and labels.csv: real servers and clients in namespaces of their own. Needs root.

    sudo python3 demo/record.py                      # two minutes; writes beside this file
    sudo python3 demo/record.py --out /tmp --seed 2

Every host is a network namespace on one bridge, in a namespace too; nothing leads outside. tcpdump listens on
the bridge, which sees each frame once, in both directions. Everything started is stopped by its process id,
and everything made is removed, also after a failure.
"""

import argparse
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from types import FrameType, TracebackType
from typing import Self

import clients
import labels

logger = logging.getLogger("demo.record")

HERE = Path(__file__).resolve().parent
HOSTS = {"web": 10, "shell": 22, "dns": 53, **{name: 101 + i for i, name in enumerate(clients.WORK)}}
V4, V6 = "10.77.0.{}", "fd77::{}"
SNAP = 128  # bytes kept of a frame: all headers, hardly any payload; the length on the wire is kept too
SETTLE_S = 4  # multicast reports of new addresses are over
PROGRAMS = (
    *("ip", "sysctl", "ethtool", "timeout", "tcpdump", "zstd"),
    *("nginx", "dnsmasq", "sshd", "openssl", "ssh-keygen"),
    *("curl", "wget", "dig", "ping", "ssh", "scp", "sshpass", "nmap", "hydra"),
)
LIMIT_S = 600  # no process lives longer, even when this one is killed and cannot clean up
STOPPING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

NGINX = """
daemon off;
user nobody {group};
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.error;
events {{ worker_connections 256; }}
http {{
    access_log off;
    default_type text/html;
    client_body_temp_path {folder}/nginx-body;
    proxy_temp_path {folder}/nginx-proxy;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen 80;
        listen [::]:80;
        root {folder}/www;
        location = /form {{ return 200 "thank you\\n"; }}
    }}
}}
"""
SSHD = """
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
MaxAuthTries 4
MaxStartups 50
PidFile none
Subsystem sftp internal-sftp
"""
DNSMASQ = """
keep-in-foreground
pid-file=
user=root
no-hosts
no-resolv
no-poll
local=/{domain}/
mx-host={domain},mail.{domain},10
txt-record={domain},"v=spf1 -all"
"""


class StoppedError(Exception):
    """Someone asked us to stop."""


def run(*argv: str) -> None:
    """Run a program that must succeed; its error output becomes the message."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}: {done.stderr.strip()}")


class Network:
    """Namespaces on a bridge, a folder and the processes in them; all gone when left."""

    def __init__(self) -> None:
        """Nothing is made before entering."""
        self.prefix = f"demo{os.getpid()}-"
        self.folder = Path(tempfile.mkdtemp(prefix="demo-"))
        self.folder.chmod(0o711)  # nginx and sshd change user
        self.overlay = Path("/etc/netns")  # `ip netns exec` mounts it over /etc, in the namespace only
        self.overlay_was_there = self.overlay.exists()
        self.made: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Make switch and hosts."""
        try:
            self._namespace("switch")
            self._in("switch", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
            bridge = ("type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            self._in("switch", "ip", "link", "add", "br0", *bridge)
            self._in("switch", "ip", "link", "set", "br0", "up")
            for name, number in HOSTS.items():
                self._host(name, number)
            for name in HOSTS:
                self._know_neighbours(name)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and remove everything."""
        self._remove()

    def start(self, host: str, *argv: str, log: str = "servers.out") -> subprocess.Popen[bytes]:
        """Start a program on a host, in a process group of its own."""
        with (self.folder / log).open("ab") as output:
            full = ("ip", "netns", "exec", self.prefix + host, "timeout", str(LIMIT_S), *argv)
            process = subprocess.Popen(
                full, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self.processes.append(process)
        return process

    def _in(self, host: str, *argv: str) -> None:
        run("ip", "netns", "exec", self.prefix + host, *argv)

    def _namespace(self, host: str) -> None:
        run("ip", "netns", "add", self.prefix + host)
        self.made.append(self.prefix + host)
        self._in(host, "ip", "link", "set", "lo", "up")

    def _host(self, name: str, number: int) -> None:
        """One namespace with one interface, its name server and, for the ssh server, its users."""
        etc = self.overlay / (self.prefix + name)
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text(
            f"nameserver {V4.format(HOSTS['dns'])}\noptions timeout:2 attempts:2\n"
        )
        self._namespace(name)
        port = f"to-{name}"
        ends = (
            "eth0",
            "netns",
            self.prefix + name,
            "type",
            "veth",
            "peer",
            port,
            "netns",
            self.prefix + "switch",
        )
        run("ip", "link", "add", *ends)
        offloads = [part for what in ("tso", "gso", "gro", "tx") for part in (what, "off")]
        for place, end in ((name, "eth0"), ("switch", port)):
            self._in(place, "ethtool", "-K", end, *offloads)
        self._in("switch", "ip", "link", "set", port, "master", "br0", "up")
        for setting in ("accept_dad=0", "router_solicitations=0"):
            self._in(name, "sysctl", "-qw", f"net.ipv6.conf.eth0.{setting}")
        self._in(name, "ip", "link", "set", "eth0", "address", f"02:77:00:00:00:{number:02x}", "up")
        self._in(name, "ip", "address", "add", V4.format(number) + "/24", "dev", "eth0")
        self._in(name, "ip", "address", "add", V6.format(number) + "/64", "dev", "eth0", "nodad")

    def _know_neighbours(self, name: str) -> None:
        """Give the IPv6 neighbours, so that all ICMPv6 captured is ping and has a label; ARP stays alive."""
        for other, number in HOSTS.items():
            if other != name:
                entry = (V6.format(number), "lladdr", f"02:77:00:00:00:{number:02x}", "nud", "permanent")
                self._in(name, "ip", "neigh", "replace", *entry, "dev", "eth0")

    def stop(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
        """End a program and its group; kill it after five seconds."""
        for number in (how, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(5)
                return
            except ProcessLookupError:
                process.wait()
                return
            except subprocess.TimeoutExpired:
                logger.warning("process=%d still there after %s", process.pid, number.name)

    def _remove(self) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # a second one must not leave half of it behind
        for process in reversed(self.processes):
            if process.poll() is None:
                self.stop(process)
        for name in reversed(self.made):
            found = subprocess.run(["ip", "netns", "pids", name], check=False, capture_output=True, text=True)
            for pid in found.stdout.split():  # children that left their group
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            subprocess.run(["ip", "netns", "delete", name], check=False)
        for name in HOSTS:
            shutil.rmtree(self.overlay / (self.prefix + name), ignore_errors=True)
        if not self.overlay_was_there and self.overlay.is_dir() and not any(self.overlay.iterdir()):
            self.overlay.rmdir()
        shutil.rmtree(self.folder, ignore_errors=True)


def content(net: Network, rng: Random) -> None:
    """What the servers hand out and the keys of the user; sizes from the seed."""
    folder = net.folder
    for part in ("www/page", "www/data", "www/api", "home"):
        (folder / part).mkdir(parents=True)
    for i in range(clients.PAGES):
        size = min(15_000, int(rng.lognormvariate(8.5, 0.6)))  # median 5 kB
        (folder / f"www/page/{i}.html").write_bytes(b"<p>" + rng.randbytes(size // 2).hex().encode())
    for i in range(clients.DATA_FILES):
        (folder / f"www/data/{i}.bin").write_bytes(rng.randbytes(rng.randint(25_000, 60_000)))
    for i in range(clients.API_FILES):
        (folder / f"www/api/{i}.json").write_bytes(
            b'{"value": "' + rng.randbytes(rng.randint(20, 600)).hex().encode() + b'"}'
        )
    (folder / "home/archive.bin").write_bytes(rng.randbytes(20_000))
    (folder / "home/notes.txt").write_text("a note\n" * 60)
    (folder / "upload.bin").write_bytes(rng.randbytes(12_000))
    for name in ("key", "host_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f", str(folder / name))
    for path in (folder / "home", *(folder / "home").iterdir()):
        os.chown(path, 61001, 61001)


def users(net: Network) -> None:
    """The ssh server's users: seen in its namespace only, the machine's own are neither read nor changed."""
    etc = net.overlay / (net.prefix + "shell")
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", clients.PASSWORD], check=True, capture_output=True, text=True
    ).stdout.strip()
    (etc / "passwd").write_text(
        "root:x:0:0:root:/:/usr/sbin/nologin\n"
        "sshd:x:103:65534::/run/sshd:/usr/sbin/nologin\n"
        f"{clients.USER}:x:61001:61001::{net.folder}/home:/bin/sh\n"
    )
    (etc / "shadow").write_text(
        f"root:*:19000::::::\nsshd:*:19000::::::\n{clients.USER}:{hashed}:19000::::::\n"
    )
    (etc / "shadow").chmod(0o600)


def servers(net: Network) -> None:
    """Start web, name and ssh server."""
    folder = net.folder
    group = subprocess.run(["id", "-gn", "nobody"], check=True, capture_output=True, text=True).stdout.strip()
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, group=group))
    records = [DNSMASQ.format(domain=clients.DOMAIN)]
    names = {"www": HOSTS["web"], "shell": HOSTS["shell"], "dns": HOSTS["dns"], "mail": HOSTS["shell"]}
    names |= {f"app{i}": 150 + i for i in range(clients.APPS)}
    records += [f"host-record={n}.{clients.DOMAIN},{V4.format(i)},{V6.format(i)}\n" for n, i in names.items()]
    (folder / "dnsmasq.conf").write_text("".join(records))
    sshd, configured = shutil.which("sshd") or "", SSHD.format(folder=folder)
    (folder / "sshd.conf").write_text(configured)
    penalties = [sshd, "-T", "-f", str(folder / "sshd.conf"), "-o", "PerSourcePenalties=no"]
    if (
        subprocess.run(penalties, check=False, capture_output=True).returncode == 0
    ):  # OpenSSH >= 9.8 locks guessers out
        (folder / "sshd.conf").write_text(configured + "PerSourcePenalties no\n")
    users(net)
    net.start("web", "nginx", "-e", f"{folder}/nginx.error", "-c", f"{folder}/nginx.conf")
    net.start("dns", "dnsmasq", f"--conf-file={folder}/dnsmasq.conf")
    private = (
        "mount -t tmpfs tmpfs /run && mkdir /run/sshd && mount -t tmpfs tmpfs /var/log"  # keeps logins here
    )
    net.start("shell", "sh", "-c", f"{private} && exec {sshd} -D -e -f {folder}/sshd.conf")


def record(net: Network, seed: int, duration: float, attack_at: float) -> Path:
    """Let the clients work for `duration` seconds and return the capture."""
    rng = Random(seed)
    content(net, rng)
    servers(net)
    time.sleep(SETTLE_S)
    for process in net.processes:
        if process.poll() is not None:
            raise RuntimeError(f"a server did not start:\n{(net.folder / 'servers.out').read_text()}")
    capture = net.folder / "demo.pcap"
    listen = ("-i", "br0", "-s", str(SNAP), "-B", "16384", "--time-stamp-precision=nano", "--immediate-mode")
    tcpdump = net.start(
        "switch", "tcpdump", *listen, "-U", "-n", "-Z", "root", "-w", str(capture), log="tcpdump.out"
    )
    start = time.time() + 2
    times = {"--start": start, "--attack": start + attack_at * duration, "--end": start + duration}
    options = [part for name, at in times.items() for part in (name, f"{at:.3f}")]
    program = (sys.executable, str(HERE / "clients.py"))
    working = [
        net.start(host, *program, host, str(net.folder), "--seed", str(seed), *options, log="clients.out")
        for host in clients.WORK
    ]
    logger.info("recording seconds=%g hosts=%d", duration, len(HOSTS))
    last = start + duration + 3 * clients.COMMAND_S
    for process in working:
        process.wait(max(1.0, last - time.time()))
    time.sleep(1)  # the last connections close
    net.stop(tcpdump, signal.SIGINT)
    said = (net.folder / "tcpdump.out").read_text()
    if "\n0 packets dropped by kernel" not in said:
        raise RuntimeError(f"the capture is not whole: {said}")
    return capture


def publish(net: Network, capture: Path, out: Path) -> None:
    """Label the connections, say what was recorded and write both files to `out`."""
    logged = labels.spans(net.folder)
    failed = [span for span in logged if not span.ok]
    if failed:
        logger.warning("activities failed=%d of=%d first=%s", len(failed), len(logged), failed[0])
    logger.info("packets put in order=%d", labels.sort(capture))
    found = labels.connections(capture)
    host_of = {form.format(number): name for name, number in HOSTS.items() for form in (V4, V6)}
    labelled, unknown = labels.join(found, logged, host_of)
    if unknown:
        logger.warning("connections without label=%d first=%s", len(unknown), unknown[0])
    times = [ts for ts, _ in labels.frames(capture)]
    attacks = [c for c, row in labelled if row["attack"]]
    hostile = sum(c.packets for c in attacks)
    if not attacks:
        raise RuntimeError("no attack was recorded")
    logger.info(
        "packets=%d seconds=%.1f connections=%d", len(times), (times[-1] - times[0]) / 1e9, len(found)
    )
    logger.info(
        "first attack packet=%d share before=%.3f at=%s attack packets=%d share=%.3f",
        attacks[0].first, attacks[0].first / len(times), labels.seconds(attacks[0].start),
        hostile, hostile / len(times),
    )  # fmt: skip
    labels.write(out / "labels.csv", labelled)
    run("zstd", "-q", "-19", "-f", str(capture), "-o", str(out / "demo.pcap.zst"))
    sys.stdout.write(labels.summary(labelled) + "\n")


def stop(number: int, _: FrameType | None) -> None:
    """Turn a signal into an exception, so that everything is removed."""
    raise StoppedError(signal.Signals(number).name)


def main() -> int:
    """Check, record, label."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder for both files")
    parser.add_argument("--seed", type=int, default=1, help="of every choice of content, order and pause")
    parser.add_argument("--seconds", type=float, default=85.0, help="how long the clients work")
    parser.add_argument("--attack-at", type=float, default=0.8, help="share of that time before the attack")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if os.geteuid() != 0:
        logger.error("root is needed: network namespaces are made")
        return 1
    if missing:
        logger.error("missing programs: %s", " ".join(missing))
        return 1
    for number in STOPPING:
        signal.signal(number, stop)
    os.umask(0o022)
    try:
        with Network() as net:
            publish(net, record(net, given.seed, given.seconds, given.attack_at), given.out)
    except (RuntimeError, OSError, subprocess.SubprocessError, StoppedError) as error:
        logger.error("%s: %s", type(error).__name__, error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
