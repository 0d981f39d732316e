import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeStatus, encodeHeaders } from "./headers.ts";

const bytes = (hex: string) => Buffer.from(hex.replaceAll(" ", ""), "hex");

test("a status is read in each form that a peer may send it in", () => {
  const forms: [hex: string, status: number][] = [
    ["88", 200], // the static table's own
    ["8e", 500],
    ["20 8d", 404], // after the size of the peer's table
    ["3f e1 1f 88", 200], // … in several bytes
    ["48 03 343039", 409], // a literal that the peer would keep
    ["08 03 343138", 418], // one that it does not
    ["18 03 353033", 503],
    // RFC 7541, C.6.1: 302, Huffman-coded.
    ["48 82 6402 58 85 aec3771a4b", 302],
    ["48 83 640eff", 307],
    ["48 82 1003", 201],
  ];
  for (const [hex, status] of forms) assert.equal(decodeStatus(bytes(hex)), status, hex);
});

test("headers without a status first are refused", () => {
  for (const hex of [
    "",
    "82",
    "be",
    "0f 2f 03 343034",
    "48 03 34",
    "48 04 34303930",
    "48 83 ffffff",
    "3f ff ff ff ff ff ff",
  ])
    assert.throws(() => decodeStatus(bytes(hex)), /headers/, hex);
});

test("headers are literals with their length, however long", () => {
  assert.deepEqual(encodeHeaders({ ":path": "/v1" }), bytes("00 05 3a70617468 03 2f7631"));
  const long = encodeHeaders({ a: "x".repeat(300) });
  // 127 + 45 + 128: RFC 7541, section 5.1.
  assert.deepEqual(long.subarray(0, 6), bytes("00 01 61 7f ad 01"));
  assert.equal(long.length, 6 + 300);
});
