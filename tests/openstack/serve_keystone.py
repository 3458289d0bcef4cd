"""Serves the Keystone of this directory, on the port given or a free one, and says where.

It ends when its stdin does: whoever started it holds the other end, and takes it along however
it ends itself. With --remove, the directory goes too.
"""

import argparse
import os
import shutil
import socket
import sys
import threading


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--remove", action="store_true")
    return parser.parse_args()


def end_with_stdin(remove):
    sys.stdin.read()
    if remove:
        shutil.rmtree(os.getcwd(), ignore_errors=True)
    os._exit(0)


def listen(host, port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(128)
    return listener


def application(address):
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = os.path.abspath("keystone.conf")
    os.environ["OS_DEFAULT__PUBLIC_ENDPOINT"] = f"http://{address}"
    # Keystone reads the command line as soon as it is imported, and knows none of ours.
    sys.argv = sys.argv[:1]
    from keystone.server import wsgi

    return wsgi.initialize_public_application()


def main():
    options = arguments()
    threading.Thread(target=end_with_stdin, args=[options.remove], daemon=True).start()
    listener = listen(options.host, options.port)
    address = "{}:{}".format(*listener.getsockname())
    served = application(address)
    from waitress import serve

    print(f"keystone at {address}", flush=True)
    # One at a time: of two that write at once SQLite refuses one, and Keystone makes a 500 of it.
    serve(served, sockets=[listener], threads=1)


main()
