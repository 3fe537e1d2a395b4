# SPDX-License-Identifier: MIT
"""A TCP proxy on loopback that cuts its connections when told to.

    proxy = CuttingProxy(("127.0.0.1", broker.port))
    proxy.port; proxy.accepted_count; proxy.open_count(); proxy.cut(); proxy.refuse(True); proxy.end()
"""

import selectors
import socket
import struct
import threading

CHUNK_BYTES = 65536


class CuttingProxy:
    """Passes bytes both ways. cut() resets all connections; refuse(True) resets newcomers too, until refuse(False)."""

    def __init__(self, target):
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.accepted_count = 0
        self.refusing = False
        self.pairs = set()
        self.lock = threading.Lock()
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.target, 10)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            with self.lock:
                self.accepted_count += 1
                pair = (near, far)
                self.pairs.add(pair)
                if self.refusing:
                    self._reset(pair)
            threading.Thread(target=self._pass_on, args=(pair,), daemon=True).start()

    def _pass_on(self, pair):
        near, far = pair
        with selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            try:
                while True:
                    for key, _ in selector.select():
                        data = key.fileobj.recv(CHUNK_BYTES)
                        if not data:
                            return
                        key.data.sendall(data)
            except (OSError, ValueError):
                pass
            finally:
                with self.lock:
                    self.pairs.discard(pair)
                near.close()
                far.close()

    @staticmethod
    def _reset(pair):
        for each in pair:
            try:
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes
            except OSError:
                pass

    def open_count(self):
        with self.lock:
            return len(self.pairs)

    def cut(self):
        with self.lock:
            for pair in self.pairs:
                self._reset(pair)

    def refuse(self, refusing):
        """True: whoever is or gets connected is cut off at once."""
        self.refusing = refusing
        if refusing:
            self.cut()

    def end(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()
