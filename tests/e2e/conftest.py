# SPDX-License-Identifier: MIT
"""End-to-end tests run on both pollers."""

import os

import pytest
from clients import Bystander
from pipeline import Pipeline, heal


@pytest.fixture(scope="session", params=["poll", "epoll"])
def poller(request):
    return request.param


@pytest.fixture(scope="session")
def shared_pipeline(servers, poller, tmp_path_factory):
    """One gateway and one processor with default settings, for all tests that need nothing else. Only the spool is off:
    with it a client hears `accepted`, too, where the machine stands still for two seconds."""
    pipeline = Pipeline(*servers, tmp_path_factory.mktemp(f"shared-{poller}"), poller)
    pipeline.shared_gateway = pipeline.gateway(SPOOL_MAX_BYTES="0")
    pipeline.processor()
    pipeline.wait_connected(pipeline.shared_gateway)
    yield pipeline
    heal(*servers)
    pipeline.end()


@pytest.fixture
def gateway(shared_pipeline):
    gateway = shared_pipeline.shared_gateway
    gateway.check_alive()
    shared_pipeline.wait_connected_to_broker(gateway)  # another test may have restarted it
    yield gateway
    gateway.check_alive()


@pytest.fixture
def bystander(shared_pipeline, gateway):
    """A client that must not notice what the test does."""
    bystander = Bystander(gateway)
    yield bystander
    bystander.end()


@pytest.fixture
def client_id():
    """A client id nobody else uses."""
    return f"c-{os.urandom(6).hex()}"
