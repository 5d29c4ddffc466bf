#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tests/run.sh [OPTION OF swift test...]: runs the tests, of which none may be skipped. What failed
# is said once more at the end; the whole of it stays in out/test.log.
set -o pipefail
cd "$(dirname "$0")/.." || exit 1
mkdir -p out
ROOTLINK_REQUIRE_ALL=1 "${SWIFT:-swift}" test "$@" 2>&1 | tee out/test.log && exit 0
echo "What failed (the whole log is out/test.log):"
grep -a '✘' out/test.log
exit 1
