import assert from "node:assert/strict";
import { test } from "node:test";
import { type NixEvent, NixLog } from "./nix-log.ts";

/** Lines as `nix build --log-format internal-json` of Nix 2.8 writes them. */
const line = (message: object) => `@nix ${JSON.stringify(message)}`;
const started = (type: number, fields: unknown[], text = "") =>
  line({ action: "start", id: 1, level: 3, parent: 0, type, fields, text });
const buildLine = (text: string) => line({ action: "result", id: 1, type: 101, fields: [text] });

function read(lines: string[]): { log: NixLog; events: NixEvent[] } {
  const events: NixEvent[] = [];
  const log = new NixLog((event) => events.push(event));
  for (const text of lines) log.push(text);
  return { log, events };
}

test("what is built, fetched and printed is told as it happens, by names people know", () => {
  const { events } = read([
    started(105, ["/nix/store/0c1zqj4lrkzqswmmzv7nmjzi5bhzbr45-web-image.drv", "", 1, 1]),
    started(108, ["/nix/store/6x1bql4lrkzqswmmzv7nmjzi5bhzbr45-redis-7.2.4", "https://cache.nixos.org", "local"]),
    started(101, ["https://github.com/NixOS/nixpkgs/archive/abc.tar.gz"]),
    started(102, ["something else"]),
    buildLine("\u001b[1mcompiling\u001b[0m"),
    line({ action: "result", id: 1, type: 105, fields: [1, 2, 0, 0] }),
    line({ action: "stop", id: 1 }),
  ]);
  assert.deepEqual(events, [
    { kind: "build", name: "web-image" },
    { kind: "fetch", name: "redis-7.2.4" },
    { kind: "fetch", name: "abc.tar.gz" },
    { kind: "log", line: "compiling" },
  ]);
});

test("errors are kept without colours; warnings and chatter are not errors", () => {
  const { log } = read([
    line({ action: "msg", level: 1, msg: "warning: Git tree '/x' is dirty" }),
    line({
      action: "msg",
      level: 0,
      msg: "\u001b[31;1merror:\u001b[0m undefined variable 'pkgz'\n\n       at /x/flake.nix:7:3:",
    }),
  ]);
  assert.equal(log.errorText(), "error: undefined variable 'pkgz'\n       at /x/flake.nix:7:3:");
});

test("what is no message of the log (Nix could not even begin) counts as an error", () => {
  const { log } = read(["error: unrecognised flag '--log-format'", "", "  "]);
  assert.equal(log.errorText(), "error: unrecognised flag '--log-format'");
});

test("of a build's own output, the last 15 lines are kept", () => {
  const { log } = read(Array.from({ length: 40 }, (_, index) => buildLine(`line ${index}`)));
  assert.equal(log.buildLog.length, 15);
  assert.equal(log.buildLog[0], "line 25");
  assert.equal(log.buildLog.at(-1), "line 39");
});

test("messages that are damaged, or of a Nix to come, do no harm", () => {
  const { log, events } = read([
    "@nix {",
    "@nix null",
    "@nix 5",
    "@nix []",
    line({ action: "start", type: 105 }),
    line({ action: "new" }),
    "@nix ",
  ]);
  assert.equal(log.errorText(), "");
  assert.deepEqual(events, [{ kind: "build", name: "" }]);
});
