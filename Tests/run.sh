#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tests/run.sh [OPTION OF swift test...]: runs the tests that `make tests` has built, of which none
# may be skipped for a thing that is missing. Without options all of them, in two processes side by
# side: Debian boots keep processors busy, and the rest mostly waits. What failed is said once more
# at the end; the whole of it stays in out/test*.log.
set -o pipefail
cd "$(dirname "$0")/.." || exit 1
mkdir -p out
export ROOTLINK_REQUIRE_ALL=1
boots='BootTests\.(Canary|DebianLife|DisklessBoot|FailingBoot|NetworkManagerPeace)Tests'

run() { # LOG OPTION...
  local log=$1
  shift
  .build/debug/rootlinkPackageTests.xctest --testing-library swift-testing "$@" 2>&1 | tee "$log"
}

status=0
logs=(out/test.log)
if [ $# -gt 0 ]; then
  run out/test.log "$@" || status=1
else
  logs+=(out/test-boots.log)
  run out/test-boots.log --filter "$boots" >/dev/null &
  run out/test.log --skip "$boots" || status=1
  echo "The Debian boots (all that they said is in out/test-boots.log):"
  wait $! || status=1
  grep -aE '^boot [a-z]|✘|^.. Test run ' out/test-boots.log
fi
[ $status = 0 ] && exit 0
echo "What failed (the whole is in ${logs[*]}):"
grep -a '✘' "${logs[@]}"
exit 1
