# SPDX-License-Identifier: MIT
"""A connect storm: all users at once, then none, then all again. After a power cut a site comes back like that.

The number of users and the time come from the options below, and Locust's own are not used."""

from locust import LoadTestShape, events
from locustfile import Steady  # pylint: disable=unused-import


@events.init_command_line_parser.add_listener
def add_options(parser):
    parser.add_argument("--storm-users", type=int, default=200, help="how many connect at once")
    parser.add_argument("--storm-seconds", type=float, default=10.0, help="how long they stay, and stay away")
    parser.add_argument("--storm-rounds", type=int, default=3, help="how often they come")


class Storm(LoadTestShape):
    def tick(self):
        options = self.runner.environment.parsed_options
        half, _ = divmod(self.get_run_time(), options.storm_seconds)
        if half >= 2 * options.storm_rounds:
            return None
        return (options.storm_users if half % 2 == 0 else 0), max(1, options.storm_users)
