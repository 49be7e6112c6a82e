"""A shop of PHP pages over a database, in two versions: one open to injections, one without that mistake."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import math
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random

from probing.lab.errors import LabError
from probing.lab.isolation import PASSWORD, USERS
from probing.lab.services import mariadb
from probing.lab.session import Site, program_version

PAGES = Path(__file__).resolve().parent / "pages"
MODULES = Path("/usr/lib/apache2/modules")
PORT = 80
PRODUCTS, CUSTOMERS, COUPONS, ORDERS = 360, 240, 12, 400
IDLE_S, SHORT_S = 65, 3  # seconds until an idle connection is closed, and in a run about that
KINDS = ("lamp", "lantern", "candle", "torch", "bulb", "shade", "sconce", "chandelier")
LOOKS = ("brass", "oak", "paper", "copper", "glass", "linen", "iron", "marble", "bamboo", "silver")
USES = ("reading", "harbour", "garden", "kitchen", "attic", "travel", "desk", "porch", "cellar", "library")
ABOUT = (
    "gives a warm and even light, is made by hand from old patterns in our workshop, lasts many winters and "
)

CONFIGURATION = """
ServerRoot {folder}
ServerName shop
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
ErrorLog {folder}/error
Listen {port}
LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule dir_module {modules}/mod_dir.so
LoadModule mime_module {modules}/mod_mime.so
LoadModule php_module {php}
User www-data
Group www-data
StartServers {workers}
MinSpareServers 4
MaxRequestWorkers 150
KeepAlive On
KeepAliveTimeout {idle}
MaxKeepAliveRequests 0
TypesConfig /dev/null
AddType text/css .css
DocumentRoot {www}
DirectoryIndex index.php
<FilesMatch "\\.php$">
    SetHandler application/x-httpd-php
</FilesMatch>
php_admin_value mysqli.default_socket {socket}
php_admin_value session.save_path {folder}/sessions
php_admin_value session.gc_probability 0
"""


class Shop:
    """The shop: Apache with PHP as its module, and MariaDB."""

    programs = ("apache2", *mariadb.PROGRAMS)

    def __init__(self, query: str) -> None:
        """query: name of the page that queries the database, the only one in which the versions differ."""
        self.query, self.roles = query, {PORT: "main"}

    def start(self, site: Site) -> None:
        """Serve the shop; its first page is loaded once from inside."""
        www = site.folder / "www"
        shutil.copytree(PAGES, www)
        (www / self.query).rename(www / "query.php")
        (site.folder / "sessions").mkdir()
        (site.folder / "sessions").chmod(0o1777)
        socket = mariadb.start(site, _name(), "\n".join(statements()) + "\n")
        path = site.folder / "apache.conf"
        idle = IDLE_S
        if site.parameters.termination == "timeout":
            idle = SHORT_S + math.ceil(site.parameters.longest_think_s)
        path.write_text(
            CONFIGURATION.format(folder=site.folder, www=www, socket=socket, modules=MODULES, php=_php(), port=PORT,
                                 idle=idle, workers=max(8, len(site.clients) + 4)).lstrip()
        )  # fmt: skip
        process = site.host.start(["apache2", "-f", path, "-DFOREGROUND"], log="apache")
        site.host.wait_until(_answers, process, "apache")

    def version(self) -> str:
        """The versions of its three programs."""
        apache = program_version("apache2", "-v").rpartition("/")[2].split(" ")[0]
        php = _php().name.removeprefix("libphp").removesuffix(".so")
        return f"apache {apache} php {php} mariadb {mariadb.version()}"


def _php() -> Path:
    """The path of the newest PHP module."""
    found = sorted(MODULES.glob("libphp*.so"))
    if not found:
        raise LabError(f"{MODULES}: no libphp*.so; install it (Debian package libapache2-mod-php)")
    return found[-1]


def _answers() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
    try:
        connection.request("GET", "/product.php?id=1", headers={"Connection": "close"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _name() -> str:
    """A name that changes with the statements of the database."""
    return hashlib.sha256("\n".join(statements()).encode()).hexdigest()[:12]


@cache
def product_names() -> tuple[str, ...]:
    """The names of all products, by their number from 1 on."""
    every = [f"{look} {use} {kind}" for look in LOOKS for use in USES for kind in KINDS]
    return tuple(Random("products").sample(every, PRODUCTS))


@cache
def customers() -> tuple[str, ...]:
    """The names of all customers, the lab's users first."""
    rng, names = Random("customers"), dict.fromkeys(USERS)
    while len(names) < CUSTOMERS:
        names[f"{rng.choice(KINDS)}{rng.randrange(10_000):04d}"] = None
    return tuple(names)


def password_of(name: str) -> str:
    """The password of a customer: 8 to 24 letters and digits, but for the lab's users."""
    letters = hashlib.sha256(f"password of {name}".encode()).hexdigest()
    return PASSWORD if name in USERS else letters[: 8 + int(letters[-2:], 16) % 17]


def statements() -> Iterator[str]:
    """The statements of the shop's database, always the same, one a line."""
    rng, users = Random("shop"), customers()
    yield "CREATE DATABASE shop CHARACTER SET utf8mb4;"
    yield "USE shop;"
    yield ("CREATE TABLE products (id INT PRIMARY KEY, name VARCHAR(80), price DECIMAL(8,2), stock INT, about TEXT,"
           " KEY (name));")  # fmt: skip
    yield ("CREATE TABLE users (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80), email VARCHAR(120),"
           " password CHAR(64), KEY (name));")  # fmt: skip
    yield "CREATE TABLE coupons (id INT PRIMARY KEY, code CHAR(10), percent INT);"
    yield ("CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, buyer VARCHAR(80), product INT, pieces INT,"
           " KEY (buyer)) AUTO_INCREMENT = 10001;")  # fmt: skip
    yield from _insert("products", (
        (k, name, f"{rng.randrange(500, 40_000) / 100:.2f}", rng.randrange(80), _about(rng))
        for k, name in enumerate(product_names(), 1)
    ))  # fmt: skip
    yield from _insert("users", (
        (k, name, f"{name}@example.org", password_hash(password_of(name))) for k, name in enumerate(users, 1)
    ))  # fmt: skip
    yield from _insert(
        "coupons", ((k + 1, f"{rng.getrandbits(40):010X}", rng.randrange(5, 50)) for k in range(COUPONS))
    )
    yield from _insert("orders", (
        (10_001 + k, rng.choice(users), rng.randrange(1, PRODUCTS + 1), rng.randrange(1, 5)) for k in range(ORDERS)
    ))  # fmt: skip
    yield "FLUSH PRIVILEGES;"
    yield "CREATE USER shop@localhost IDENTIFIED BY 'shop';"
    yield "GRANT SELECT, INSERT ON shop.* TO shop@localhost;"


def password_hash(password: str) -> str:
    """The hash of a password, as the shop stores it."""
    return hashlib.sha256(password.encode()).hexdigest()


def _about(rng: Random) -> str:
    return f"It {(ABOUT * 9)[: rng.randrange(150, 900)]}..."


def _insert(table: str, rows: Iterator[tuple[object, ...]]) -> Iterator[str]:
    """The statements that fill a table, each below the 60000 bytes that a database's first start accepts."""
    while some := list(itertools.islice(rows, 40)):
        values = ",".join("(" + ",".join(f"'{value}'" for value in row) + ")" for row in some)
        yield f"INSERT INTO {table} VALUES {values};"


INJECTABLE = Shop("injectable.php")
PREPARED = Shop("prepared.php")
