"""Apache httpd: static files, uploads and streams, with and without TLS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from probing.lab.services import web_site
from probing.lab.session import Site, program_version

MODULES = Path("/usr/lib/apache2/modules")
LOADED = (
    "mpm_event", "authz_core", "mime", "dir", "alias", "env", "ratelimit", "setenvif", "socache_shmcb", "ssl",
)  # fmt: skip

# Its handler of files reads the body of a POST to the end before it answers with the file. It must not send
# the farewell of TLS: clients that have closed already (curl, wget) would answer with a RST, sometimes before its FIN.
CONFIGURATION = """
{modules}
ServerRoot {folder}
ServerName lab
PidFile {folder}/pid
DefaultRuntimeDir {folder}
User www-data
Group www-data
ErrorLog {folder}/error
LogLevel warn
HostnameLookups Off
Listen 80
Listen 443
Timeout 30
KeepAlive On
KeepAliveTimeout {idle}ms
MaxKeepAliveRequests 0
StartServers 1
ServerLimit 16
ThreadsPerChild 64
MaxRequestWorkers 1024
MinSpareThreads 16
MaxSpareThreads 1024
AsyncRequestWorkerFactor 8
TypesConfig /dev/null
AddType text/html .html
AddType application/octet-stream .bin
DocumentRoot {www}
<Directory {www}>
    Require all granted
    AllowOverride None
</Directory>
Alias /{upload} {folder}/{upload}
<Directory {folder}>
    <Files {upload}>
        Require all granted
    </Files>
</Directory>
RedirectMatch 301 ^/{moved}(.*)$ /$1
<Location /{stream}>
    SetOutputFilter RATE_LIMIT
    SetEnv rate-limit {rate}
</Location>
<VirtualHost *:443>
    SSLEngine on
    {http2}
    SSLCertificateFile {certificate}
    SSLCertificateKeyFile {key}
    SetEnvIf Request_URI . ssl-unclean-shutdown
</VirtualHost>
"""


class Apache:
    """Apache httpd with its event module, without PHP."""

    programs = ("apache2", "openssl")
    roles: Mapping[int, str] = MappingProxyType({80: "main", 443: "main"})

    def start(self, site: Site) -> None:
        """Serve the pages on ports 80 and 443."""
        (site.folder / web_site.UPLOAD).write_text(web_site.THANKS)
        certificate, http2 = web_site.certificate(site), web_site.serves_http2(site)
        loaded = (*LOADED, "http2") if http2 else LOADED
        configuration = site.folder / "apache.conf"
        configuration.write_text(
            CONFIGURATION.format(
                modules="\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in loaded),
                http2="Protocols h2 http/1.1" if http2 else "",
                folder=site.folder, idle=web_site.idle_ms(site), www=web_site.set_up(site), upload=web_site.UPLOAD,
                moved=web_site.MOVED, stream=web_site.STREAM, rate=web_site.STREAM_KIB, **certificate._asdict(),
            )
        )  # fmt: skip
        process = site.host.start(["apache2", "-D", "FOREGROUND", "-f", configuration], log="apache")
        for port in self.roles:
            site.host.wait_for_port(port, process, "apache")

    def version(self) -> str:
        """The version of the program."""
        found = re.search(r"Apache/(\S+)", program_version("apache2", "-v"))
        return found[1] if found else ""


APACHE = Apache()
