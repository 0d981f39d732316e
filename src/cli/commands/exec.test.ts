import assert from "node:assert/strict";
import { test } from "node:test";
import { splitCommand } from "./exec.ts";

test("options may stand between the name and the command", () => {
  assert.deepEqual(splitCommand(["-it", "--", "sh"], {}), {
    argv: ["sh"],
    options: { interactive: true, tty: true, env: [] },
  });
  assert.deepEqual(splitCommand(["-u", "bob", "-e", "B=2", "ls", "-l"], { tty: true, user: "al", env: ["A=1"] }), {
    argv: ["ls", "-l"],
    options: { tty: true, user: "bob", env: ["A=1", "B=2"] },
  });
});

test("what follows `--`, or a word that is no option, is the guest's", () => {
  const guests: [string[], string[]][] = [
    [
      ["--", "-it", "--", "sh"],
      ["-it", "--", "sh"],
    ],
    [
      ["ls", "-t", "--", "x"],
      ["ls", "-t", "--", "x"],
    ],
    [
      ["-i", "--", "sh", "-i", "--", "-t"],
      ["sh", "-i", "--", "-t"],
    ],
    [["-i", "--", "-t"], ["-t"]],
  ];
  for (const [words, argv] of guests) assert.deepEqual(splitCommand(words, {}).argv, argv, words.join(" "));
});

test("an option that there is not, and options without a command, are wrong usage", () => {
  assert.throws(() => splitCommand(["-x", "--", "sh"], {}), { code: "commander.unknownOption" });
  assert.throws(() => splitCommand(["-it"], {}), { code: "commander.missingArgument" });
  assert.throws(() => splitCommand(["-it", "--"], {}), { code: "commander.missingArgument" });
});
