#!/usr/bin/env bash
# Runs every test and adds them up: the last line is `N passed, N failed, N skipped`.
# usage: test.sh [quick]   quick leaves the end-to-end tests out, and counts them as skipped.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
log=$(mktemp)
trap 'rm -f "$log"' EXIT
broken=0

everything=(--workspace)
[ "${1:-}" = quick ] && everything=(--workspace --exclude everflame-tests --exclude everflame-kernels --exclude everflame-kubernetes)

cargo test --release --no-fail-fast "${everything[@]}" 2>&1 | tee "$log"
[ "${PIPESTATUS[0]}" = 0 ] || broken=1
if [ "${1:-}" = quick ]; then
    cargo test --release --package everflame-kubernetes --test manifests 2>&1 | tee -a "$log"
    [ "${PIPESTATUS[0]}" = 0 ] || broken=1
fi

# test result: ok. 12 passed; 0 failed; 1 ignored; …
read -r passed failed skipped < <(awk '/^test result:/ { p += $4; f += $6; s += $8 } END { print p + 0, f + 0, s + 0 }' "$log")

if [ -d ui/node_modules ]; then
    page=$(cd ui && npx vitest run --reporter=json 2>"$log") || { broken=1 && cat "$log"; }
    read -r p f s < <(node -e '
        const r = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const failed = r.testResults.flatMap((t) => t.assertionResults).filter((t) => t.status === "failed");
        for (const t of failed) console.error(t.fullName, ...t.failureMessages);
        console.log(r.numPassedTests, r.numFailedTests, r.numPendingTests);
    ' <<<"$page" || echo 0 1 0)
    echo "page: $p passed; $f failed; $s skipped"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
else
    echo "page: skipped, ui/node_modules is missing (make build)"
    skipped=$((skipped + 1))
fi
if [ "${1:-}" = quick ]; then
    echo "end to end: skipped (make test runs them)"
    skipped=$((skipped + 1))
fi

# A crate that does not compile has no result line: that is a failure too.
[ $broken = 0 ] || [ "$failed" != 0 ] || failed=1
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
