# SPDX-License-Identifier: MIT
"""`./dev load`: starts Locust with our users against a gateway that runs: the one of `./dev run`, or any other."""

import argparse
import os
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from process import port_is_free  # noqa: E402
from programs import ROOT  # noqa: E402

HERE = Path(__file__).resolve().parent
GATEWAY_OF_RUN = ROOT / "build" / "run" / "gateway.url"
REPORTS = ROOT / "build" / "load"
GRACE_S = 10  # what users get beyond their last receipt's time before Locust cuts them off
HEADLESS = {"--users": "50", "--spawn-rate": "10", "--run-time": "30s"}


def arguments():
    parser = argparse.ArgumentParser(
        prog="./dev load", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
        description="Load on a running gateway, by Locust: its page on http://localhost:8089, or --headless.",
        epilog="All other options go to Locust. Those of the users (--rate, --message-bytes, --receipts, --query, ...)\n"
               "are shown by: locust -f tests/load/locustfile.py --help")
    parser.add_argument("-H", "--host", help="the gateway: ws://ADDRESS:8000 (default: the one of ./dev run)")
    parser.add_argument("--headless", action="store_true",
                        help="no page: 50 users for 30 s unless told otherwise, and a report in build/load/")
    parser.add_argument("--storm", action="store_true",
                        help="all users connect at once, leave, and come again (--storm-users, -seconds, -rounds)")
    parser.add_argument("--web-host", default="127.0.0.1", help="where the page listens (default 127.0.0.1)")
    parser.add_argument("--web-port", type=int, default=8089, help="its port (default 8089)")
    parser.add_argument("--receipt-timeout", type=float, default=30, help="seconds to wait for a receipt (default 30)")
    parser.add_argument("--html", default=REPORTS / "report.html", help="the report (default build/load/report.html)")
    parser.add_argument("--figures", default=REPORTS / "report.json",
                        help="its figures (default build/load/report.json)")
    return parser.parse_known_args()


def gateway_host(given):
    """The gateway's URL; ends the program when nobody answers there."""
    host = given
    if not host:
        try:
            host = GATEWAY_OF_RUN.read_text("utf-8").strip()
        except OSError:
            host = "ws://127.0.0.1:8000"
    parts = urlsplit(host if "://" in host else f"ws://{host}")
    try:
        port = parts.port or {"wss": 443, "https": 443}.get(parts.scheme, 80)
        socket.create_connection((parts.hostname, port), 5).close()
    except (OSError, ValueError, TypeError) as error:
        sys.exit(f"No gateway answers at {host} ({error}).\n"
                 "Start one with ./dev run in another terminal, or name yours with --host ws://ADDRESS:8000")
    return host


def command(options, others):
    words = ["--locustfile", str(HERE / ("storm.py" if options.storm else "locustfile.py")),
             "--host", gateway_host(options.host),
             "--receipt-timeout", str(options.receipt_timeout),
             "--stop-timeout", str(round(options.receipt_timeout + GRACE_S))]
    if options.headless:
        REPORTS.mkdir(parents=True, exist_ok=True)
        words += ["--headless", "--only-summary", "--html", str(options.html), "--figures", str(options.figures)]
        short = {"-u": "--users", "-r": "--spawn-rate", "-t": "--run-time"}
        named = {short.get(word, word.split("=")[0]) for word in others}
        for name, value in HEADLESS.items():
            if name not in named and not options.storm:
                words += [name, value]
        return words + others
    if not port_is_free(options.web_port, options.web_host):
        sys.exit(f"Port {options.web_port} is taken: name another one with --web-port")
    print(f"Locust's page: http://localhost:{options.web_port}   (Ctrl-C ends it)", flush=True)
    return words + ["--web-host", options.web_host, "--web-port", str(options.web_port)] + others


def main():
    words = command(*arguments())
    os.execv(sys.executable, [sys.executable, "-B", "-m", "locust", *words])


if __name__ == "__main__":
    main()
