"""The painter alone in the browser, as `notebooks.app` starts it.

Voila serves notebooks/src/app.py to this machine only, to whoever has the token that it prints. Nothing else
is served, and the page gets nothing from another host. A page has a kernel of its own, which ends soon after it.
"""

import webbrowser
from typing import Any

import nbformat
from jupyter_server.services.kernels.kernelmanager import ServerKernelManager
from nbformat.sign import NotebookNotary
from traitlets.config import Config
from voila.app import Voila

from notebooks import warm
from notebooks.execution import read_source, use_this_interpreter
from sae_lib.cache.artefact import ROOT, cache_root, write_if_changed

# Voila's own template for JupyterLab's look, without the icons that it loads from another host and nothing here shows.
TEMPLATE = """\
{%- extends "voila/templates/lab/index.html.j2" -%}
{% import "spinner.macro.html.j2" as spinner %}
{%- block notebook_css -%}
{{ resources.include_js("static/voila-style.js") }}
{{ spinner.css() }}
<style>.jp-mod-noOutputs.jp-mod-noInput { display: none; }</style>
{{ super.super() }}
{%- endblock notebook_css -%}
"""

ONLY_FROM_HERE = (
    "default-src 'self'; connect-src 'self' ws://127.0.0.1:* ws://localhost:*; "
    "img-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "worker-src 'self' blob:; form-action 'self'; base-uri 'self'; frame-ancestors 'none'; object-src 'none'"
)
"""What a page may load and who may show it, as a Content-Security-Policy; anywidget's scripts are blobs."""

LEFT_SECONDS, LOOK_SECONDS = 15, 5
"""A kernel whose page is gone ends after this many seconds; how often that is looked at."""

SETTINGS = {
    "Voila": {
        "ip": "127.0.0.1",
        "auto_token": True,
        # Only under a name of this machine: another name that leads here is a trick (DNS rebinding).
        "tornado_settings": {
            "headers": {"Content-Security-Policy": ONLY_FROM_HERE},
            "allow_remote_access": False,
            "local_hostnames": ["localhost"],
            # In milliseconds, by default three times as long as the interval, which tornado refuses with a warning.
            "ws_ping_timeout": 30_000,
        },
    },
    "VoilaConfiguration": {
        "allow_template_override": "NO",
        "allow_theme_override": "NO",
        "file_allowlist": [],
        # jupytext's extension of JupyterLab fails in Voila.
        "extension_denylist": ["jupyterlab-jupytext"],
    },
    "MappingKernelManager": {
        "kernel_manager_class": "notebooks.served.PageKernel",
        "cull_idle_timeout": LEFT_SECONDS,
        "cull_interval": LOOK_SECONDS,
        "cull_connected": False,
    },
}


class PageKernel(ServerKernelManager):
    """A page's kernel, forked from the process that has imported torch and diffusers (`notebooks.warm`)."""

    async def start_kernel(self, **settings: Any) -> None:
        """Start it, as its parent class does with what is the provisioner then."""
        self.provisioner = self.provisioner or warm.Provisioner(kernel_spec=self.kernel_spec, parent=self)
        await super().start_kernel(**settings)


class App(Voila):
    """Voila with these settings, which the command line may change, and with the template above."""

    name = "voila"

    def setup_template_dirs(self) -> None:
        """Put TEMPLATE before Voila's own."""
        super().setup_template_dirs()
        write_if_changed(cache_root() / "app" / "template" / "index.html.j2", TEMPLATE.encode())
        self.template_paths = [str(cache_root() / "app" / "template"), *self.template_paths]

    def launch_browser(self) -> None:
        """Open the page with its token, which Voila itself leaves out."""
        webbrowser.open(f"{self.connection_url}?token={self.identity_provider.token}")


def main(arguments: list[str]) -> Any:
    """Serve until Ctrl-C."""
    use_this_interpreter()
    page, notebook = cache_root() / "app" / "painter.ipynb", read_source(ROOT / "notebooks" / "src" / "app.py")
    write_if_changed(page, nbformat.writes(notebook).encode())
    NotebookNotary().sign(notebook)  # else Voila warns that it does not trust it
    return App.launch_instance([str(page), *arguments], config=Config(SETTINGS))
