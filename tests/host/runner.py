# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the scenarios of a file one after the other, each on fresh hosts, and counts."""
import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback

from cluster import Cluster
from hosts import Net, images


def run_scenario(test, make_cluster, net, image, log_dir):
    begin = time.monotonic()
    directory = f"{log_dir}/{test.__name__}"
    os.mkdir(directory)
    try:
        with make_cluster(net, image, directory) as cluster:
            test(cluster)
        verdict = "ok"
        shutil.rmtree(directory)
    except Exception:  # pylint: disable=broad-except
        verdict = "FAILED"
        traceback.print_exc(file=sys.stdout)
    print(f"{verdict:7} {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
    return verdict == "ok"


def main(namespace, description, make_cluster=Cluster, **image_options):
    """@namespace is globals() of the file: its test_NAME run always, its long_test_NAME with --long. @image_options: of images.build()."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--perdure", default=f"{images.TOP}/build/perdure")
    parser.add_argument("--long", action="store_true", help="the longer scenarios too")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only scenarios with one of the words in their name")
    args = parser.parse_args()
    prefixes = ("test_", "long_test_") if args.long else ("test_",)
    tests = [t for name, t in namespace.items() if name.startswith(prefixes)]
    tests = [t for t in tests if not args.words or any(word in t.__name__ for word in args.words)]
    try:
        image = images.build(perdure=args.perdure, **image_options)
    except images.Missing as missing:
        sys.exit(f"{sys.argv[0]}: {missing}")
    net, log_dir = Net(), tempfile.mkdtemp(prefix="perdure-host-")
    print(f"logs: {log_dir}", flush=True)
    passed = sum(run_scenario(test, make_cluster, net, image, log_dir) for test in tests)
    if passed == len(tests):
        shutil.rmtree(log_dir)
    print(f"host: {passed} passed, {len(tests) - passed} failed, 0 skipped")
    sys.exit(passed != len(tests))
