#!/usr/bin/env bash
# Verifies one message with openssl: the body as it came on standard input, the secret and the three headers
# in the environment (WEBHOOK_SECRET, WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE).
set -euo pipefail

key=$(printf %s "${WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
expected=$({ printf '%s.%s.' "$WEBHOOK_ID" "$WEBHOOK_TIMESTAMP" && cat; } |
    openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

age=$(($(date +%s) - WEBHOOK_TIMESTAMP))
[ "${age#-}" -le 300 ] || { echo "verify: the message is $age seconds off" >&2 && exit 1; }
# During a rotation there are two signatures, separated by a space.
for signature in $WEBHOOK_SIGNATURE; do
    [ "$signature" != "v1,$expected" ] || { echo "verify: good" && exit 0; }
done
echo "verify: no signature fits" >&2
exit 1
