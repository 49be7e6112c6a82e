"""nginx: static files, POST, keep-alive."""

from __future__ import annotations

from probing.lab.session import Site, program_version
from probing.lab.isolation import ROOM

CONFIGURATION = """
daemon off;
user www-data;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    include /etc/nginx/mime.types;
    keepalive_timeout {idle};
    client_max_body_size 100m;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80;
        root {www};
        location /upload {{ return 200 "thank you\\n"; }}
    }}
}}
"""


class Nginx:
    """nginx."""

    programs = ("nginx",)
    roles = {80: "main", 443: "main"}

    def start(self, site: Site) -> None:
        """Serve /run/lab/www."""
        www = ROOM / "www"
        www.mkdir(exist_ok=True)
        (site.folder / "nginx.conf").write_text(
            CONFIGURATION.format(folder=site.folder, www=www, idle=65)
        )
        process = site.host.start(["nginx", "-e", site.folder / "error", "-c", site.folder / "nginx.conf"], log="nginx")
        site.host.wait_for_port(80, process, "nginx")

    def version(self) -> str:
        """Its version."""
        return program_version("nginx", "-v").rpartition("/")[2]


NGINX = Nginx()
