"""nginx: static files, uploads and streams, with and without TLS."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from probing.lab.services import web_site
from probing.lab.session import Site, program_version

# A location that returns at once would answer an upload before it has arrived; one that passes it on (without the
# body, to a socket of its own) reads it first. sendfile_max_chunk spreads a limited rate: without it, nginx sends all
# that it may at the beginning of a second, and waits.
CONFIGURATION = """
daemon off;
user www-data;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    include /etc/nginx/mime.types;
    keepalive_timeout {idle}ms;
    keepalive_requests 100000;
    client_max_body_size 100m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80;
        listen 443 ssl{http2};
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.2 TLSv1.3;
        root {www};
        location = /{upload} {{
            proxy_pass http://unix:{folder}/sink:/;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
        location /{moved} {{ rewrite ^/{moved}(.*)$ /$1 permanent; }}
        location /{stream} {{ limit_rate {rate}k; sendfile_max_chunk 16k; }}
    }}
    server {{
        listen unix:{folder}/sink;
        return 200 "{thanks}";
    }}
}}
"""


class Nginx:
    """nginx."""

    programs = ("nginx", "openssl")
    roles: Mapping[int, str] = MappingProxyType({80: "main", 443: "main"})

    def start(self, site: Site) -> None:
        """Serve the pages on ports 80 and 443."""
        certificate = web_site.certificate(site)
        configuration = site.folder / "nginx.conf"
        configuration.write_text(
            CONFIGURATION.format(
                http2=" http2" if web_site.serves_http2(site) else "",
                folder=site.folder, idle=web_site.idle_ms(site), www=web_site.set_up(site), upload=web_site.UPLOAD,
                moved=web_site.MOVED, stream=web_site.STREAM, rate=web_site.STREAM_KIB,
                thanks=web_site.THANKS.replace("\n", "\\n"), **certificate._asdict(),
            )
        )  # fmt: skip
        process = site.host.start(["nginx", "-e", site.folder / "error", "-c", configuration], log="nginx")
        for port in self.roles:
            site.host.wait_for_port(port, process, "nginx")

    def version(self) -> str:
        """The version of the program."""
        return program_version("nginx", "-v").rpartition("/")[2]


NGINX = Nginx()
