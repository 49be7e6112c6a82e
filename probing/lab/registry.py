"""The server and client implementations by name; each is imported when it is needed."""

from __future__ import annotations

import importlib
from typing import cast

from probing.lab.errors import LabError
from probing.lab.session import Client, Service

SERVICES = {
    "nginx": "nginx:NGINX",
    "apache": "apache:APACHE",
    "sql-injectable": "sql_pages:INJECTABLE",
    "sql-prepared": "sql_pages:PREPARED",
    "vsftpd": "vsftpd:VSFTPD",
    "openssh": "openssh:OPENSSH",
    "aiosmtpd": "smtp:AIOSMTPD",
    "rsyncd": "rsyncd:RSYNCD",
    "unison": "unison:UNISON",
    "dnsmasq": "dnsmasq:DNSMASQ",
    "chrony": "chrony:CHRONY",
    "hive": "hive:HIVE",
    "echo-host": "echo_host:ECHO_HOST",
    "tunnel-server": "tunnel:TUNNEL_SERVER",
    "open-host": "open_host:OPEN_HOST",
}
CLIENTS = {
    "curl": "curl:CURL",
    "wget": "wget:WGET",
    "asyncio": "asyncio_http:ASYNCIO",
    "sql-user": "sql:USER",
    "sql-hand": "sql:HAND",
    "sqlmap": "sqlmap:SQLMAP",
    "form-guesser": "guessing:FORM",
    "hydra": "hydra:HYDRA",
    "ftp-guesser": "guessing:FTP",
    "ssh-guesser": "guessing:SSH",
    "slow-http": "slow_http:SLOW_HTTP",
    "lftp": "lftp:LFTP",
    "ftplib": "ftplib_client:FTPLIB",
    "openssh": "openssh:OPENSSH",
    "swaks": "swaks:SWAKS",
    "smtplib": "smtplib_client:SMTPLIB",
    "nmap": "nmap:NMAP",
    "rsync": "rsync:RSYNC",
    "unison": "unison:UNISON",
    "dig": "dig:DIG",
    "asyncio-dns": "asyncio_dns:ASYNCIO_DNS",
    "chronyd": "ntp:CHRONYD",
    "ntpdig": "ntp:NTPDIG",
    "sntp": "ntp:SNTP",
    "bot": "bot:BOT",
    "flood": "flood:FLOOD",
    "dns-tunnel": "dns_tunnel:DNS_TUNNEL",
    "segment": "segment:SEGMENT",
}


def service(name: str) -> Service:
    """The server implementation of this name."""
    return cast(Service, _find("services", SERVICES, name))


def client(name: str) -> Client:
    """The client implementation of this name."""
    return cast(Client, _find("clients", CLIENTS, name))


def _find(kind: str, table: dict[str, str], name: str) -> object:
    if name not in table:
        raise LabError(f"{kind[:-1]} {name!r} is not one of {', '.join(sorted(table))}")
    module, attribute = table[name].split(":")
    return getattr(importlib.import_module(f"probing.lab.{kind}.{module}"), attribute)
