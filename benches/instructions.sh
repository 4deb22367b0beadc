#!/usr/bin/env bash
# Instructions for a request, each way alone, by callgrind: a figure that does not depend on how busy
# the machine is. Needs valgrind. Reading a clock counts for too little here (valgrind hides the
# kernel's fast way to it), so compare times too: cargo bench --bench hot_path
#
#   benches/instructions.sh             all ways
#   benches/instructions.sh session     the floor, and the ways that are named

set -euo pipefail

few=100
many=1100
ways=("$@")
if [ ${#ways[@]} = 0 ]; then
  ways=(bare ready_header lock_and_clock lock_and_both_clocks session session_without_replay accounts by_hand)
fi

built=$(cargo bench --bench hot_path --no-run --message-format=json-render-diagnostics)
bench=$(grep -o '"executable":"[^"]*hot_path[^"]*"' <<<"$built" | cut -d'"' -f4)

# All instructions of so many requests, without those that make them ready.
counted() { # way, requests
  valgrind --tool=callgrind --dump-instr=no --callgrind-out-file=/dev/null \
    --toggle-collect='hot_path::send*' "$bench" run "$1" "$2" 2>&1 | sed -n 's/.*Collected : //p'
}

# What comes only once is in both counts.
per_request() { # way
  echo $((($(counted "$1" "$many") - $(counted "$1" "$few")) / (many - few)))
}

floor=$(per_request floor)
print() { # way, instructions
  awk -v way="$1" -v count="$2" -v floor="$floor" \
    'BEGIN { printf "%-24s %6d  %.3f\n", way, count, count / floor }'
}

echo "way                instructions  of the floor"
print floor "$floor"
for way in "${ways[@]}"; do
  print "$way" "$(per_request "$way")"
done
