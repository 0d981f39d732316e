import assert from "node:assert/strict";
import { test } from "node:test";
import { formatBytes, formatMs, parseCpus, parseDataDiskMiB, parseMemMiB } from "./sizes.ts";

test("sizes are whole numbers within what the product supports", () => {
  assert.equal(parseCpus("1"), 1);
  assert.equal(parseMemMiB("512"), 512);
  assert.equal(parseDataDiskMiB("0"), 0);
  assert.equal(parseDataDiskMiB("8"), 8);
});

test("the error names the option, what was typed, and what it takes", () => {
  const refused: [(text: string) => number, string, RegExp][] = [
    [parseCpus, "0", /--cpus '0' is not between 1 and 64/],
    [parseCpus, "two", /--cpus 'two' is not a whole number/],
    [parseCpus, "1.5", /not a whole number/],
    [parseCpus, "-1", /not a whole number/],
    [parseCpus, "", /not a whole number/],
    [parseMemMiB, "10", /--mem '10' is not between 64 and 1048576/],
    [parseMemMiB, "abc", /--mem 'abc' is not a whole number/],
    [parseMemMiB, "512M", /not a whole number/],
    [parseMemMiB, "99999999999999999999", /not between/],
    [parseDataDiskMiB, "7", /--data-disk 7 is too small/],
  ];
  for (const [parse, text, message] of refused)
    assert.throws(() => parse(text), { code: "INVALID_SIZE", message }, text);
});

test("bytes are shown with three digits at most", () => {
  const shown = [
    0,
    1023,
    1024,
    1536,
    1024 * 1023,
    1024 * 1024 - 1,
    512 * 1024 * 1024,
    99.97 * 1024,
    2 ** 40,
    2 ** 52,
  ].map(formatBytes);
  assert.deepEqual(shown, [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "1023 KiB",
    "1.0 MiB",
    "512 MiB",
    "100 KiB",
    "1.0 TiB",
    "4096 TiB",
  ]);
});

test("times are shown in the unit a person would choose", () => {
  const shown = [0, 87.4, 999.4, 999.6, 1234, 59_949, 59_960, 75_000, 119_700, 3_600_000].map(formatMs);
  assert.deepEqual(shown, [
    "0 ms",
    "87 ms",
    "999 ms",
    "1.0 s",
    "1.2 s",
    "59.9 s",
    "1 min 0 s",
    "1 min 15 s",
    "2 min 0 s",
    "60 min 0 s",
  ]);
});
