import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePage } from "../main.ts";
import { page } from "./exec.ts";

const parse = (words: readonly string[]) => parsePage("exec", page, words);

test("options may stand before the name, and between it and the command", () => {
  const options = { interactive: true, tty: true };
  for (const words of [
    ["-it", "svc", "--", "sh"],
    ["svc", "-it", "--", "sh"],
    ["-i", "svc", "-t", "sh"],
  ])
    assert.deepEqual(parse(words), { args: ["svc", "sh"], options }, words.join(" "));
  assert.deepEqual(parse(["-t", "-u", "al", "-e", "A=1", "svc", "-u", "bob", "-e", "B=2", "ls", "-l"]), {
    args: ["svc", "ls", "-l"],
    options: { tty: true, user: "bob", env: ["A=1", "B=2"] },
  });
});

test("what follows `--`, or a word that is no option, is the guest's", () => {
  const guests: [string[], string[]][] = [
    [
      ["svc", "--", "-it", "--", "sh"],
      ["-it", "--", "sh"],
    ],
    [
      ["svc", "ls", "-t", "--", "x"],
      ["ls", "-t", "--", "x"],
    ],
    [
      ["svc", "-i", "--", "sh", "-i", "--", "-t"],
      ["sh", "-i", "--", "-t"],
    ],
    [["svc", "-i", "--", "-t"], ["-t"]],
    [["--", "svc", "-x"], ["-x"]],
    [
      ["-i", "--", "svc", "-t", "--help"],
      ["-t", "--help"],
    ],
    [
      ["svc", "ls", "--json"],
      ["ls", "--json"],
    ],
  ];
  for (const [words, command] of guests) {
    const { args, options } = parse(words);
    assert.deepEqual(args, ["svc", ...command], words.join(" "));
    assert.equal(options["tty"], undefined, words.join(" "));
  }
});

test("an option that there is not, and options without a command, are wrong usage; help is help anywhere before the command", () => {
  for (const words of [
    ["-x", "svc", "--", "sh"],
    ["svc", "-x", "--", "sh"],
  ])
    assert.throws(() => parse(words), { code: "commander.unknownOption" }, words.join(" "));
  for (const words of [["svc"], ["svc", "-it"], ["svc", "-it", "--"], ["--", "svc"]])
    assert.throws(() => parse(words), { code: "commander.missingArgument" }, words.join(" "));
  const { write } = process.stdout;
  process.stdout.write = () => true;
  try {
    for (const words of [["--help"], ["svc", "-h"], ["svc", "-i", "--help"]])
      assert.throws(() => parse(words), { code: "commander.helpDisplayed" }, words.join(" "));
  } finally {
    process.stdout.write = write;
  }
});
