import assert from "node:assert/strict";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import type { ServerHttp2Stream } from "node:http2";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { after, test } from "node:test";
import { extract, type Header, pack } from "tar-stream";
import { answerJson, useFakeAgent } from "../../test/support/fake-agent.ts";
import { MvmError } from "../core/errors.ts";
import { AgentClient } from "./agent-client.ts";
import { getFiles, packDirectory, putFiles } from "./files.ts";

const root = mkdtempSync(join(tmpdir(), "mvm-guest-files-"));
after(() => rmSync(root, { recursive: true }));
const fresh = () => mkdtempSync(join(root, "case-"));

type Entry = Partial<Header> & { name: string; content?: string };

function sendArchive(stream: ServerHttp2Stream, entries: Entry[]): void {
  const archive = pack();
  for (const { content, ...header } of entries) archive.entry(header, content ?? "");
  archive.finalize();
  stream.respond({ ":status": 200 });
  archive.pipe(stream);
}

/** Copies `/srv/site` out of a guest that sends this archive, to `target`. */
async function copyOut(entries: Entry[], target: string): Promise<void> {
  await using guest = await useFakeAgent((stream) => sendArchive(stream, entries));
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  await getFiles(client, "/srv/site", target);
}

test("a directory is sent with its modes and links; a host's devices and sockets stay at home", async () => {
  const source = fresh();
  mkdirSync(join(source, "bin"));
  writeFileSync(join(source, "bin", "run"), "#!/bin/sh\n");
  chmodSync(join(source, "bin", "run"), 0o755);
  writeFileSync(join(source, "empty"), "");
  symlinkSync("bin/run", join(source, "start"));
  const received: [string, string, string][] = [];
  let path = "";
  await using guest = await useFakeAgent(async (stream, headers) => {
    path = `${headers[":method"]} ${headers[":path"]}`;
    const archive = extract();
    const reading = pipeline(stream, archive);
    for await (const entry of archive) {
      let text = "";
      for await (const chunk of entry) text += chunk;
      const { name, type, mode, linkname } = entry.header;
      received.push([`${name} ${type}`, type === "file" ? (mode ?? 0).toString(8) : "", linkname || text]);
    }
    await reading;
    answerJson(stream, { files: 2, bytes: 10 });
  });
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  await putFiles(client, source, "/mnt/config", undefined, { replace: true });
  assert.equal(path, "PUT /v1/files?path=%2Fmnt%2Fconfig&replace=1");
  assert.deepEqual(received, [
    ["bin/ directory", "", ""],
    ["bin/run file", "755", "#!/bin/sh\n"],
    ["empty file", "644", ""],
    ["start symlink", "", "bin/run"],
  ]);
});

test("a small directory is packed; of a larger one that is known without reading all of it", async () => {
  const source = fresh();
  writeFileSync(join(source, "app.conf"), "a=1");
  const archive = await packDirectory(source, 10_000);
  const names: string[] = [];
  const reader = extract();
  reader.end(archive);
  for await (const entry of reader) {
    names.push(entry.header.name);
    entry.resume();
  }
  assert.deepEqual(names, ["app.conf"]);

  mkdirSync(join(source, "many"));
  for (let count = 0; count < 30; count++) writeFileSync(join(source, "many", `${count}`), "");
  assert.equal(await packDirectory(source, 10_000), undefined);
  writeFileSync(join(source, "a large one"), Buffer.alloc(1024 * 1024));
  assert.equal(await packDirectory(source, 10_000), undefined);
});

test("the agent's refusal is what is told, not the broken pipe that follows it", async () => {
  const source = fresh();
  writeFileSync(join(source, "large"), Buffer.alloc(4 * 1024 * 1024));
  await using guest = await useFakeAgent((stream) =>
    answerJson(stream, { code: "BAD_REQUEST", message: "the directory is read-only" }, 400),
  );
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  await assert.rejects(putFiles(client, source, "/proc", undefined), {
    code: "AGENT_BAD_REQUEST",
    message: /the directory is read-only/,
  });
});

test("a copy that is cancelled ends with the reason", async () => {
  const source = fresh();
  writeFileSync(join(source, "large"), Buffer.alloc(4 * 1024 * 1024));
  const abort = new AbortController();
  await using guest = await useFakeAgent(() => abort.abort(new Error("Ctrl+C")));
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  await assert.rejects(putFiles(client, source, "/srv", undefined, { signal: abort.signal }), /Ctrl\+C/);
});

test("a file that can't be read is named, and the copy fails", async () => {
  await using guest = await useFakeAgent((stream) => void stream.resume());
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  await assert.rejects(putFiles(client, join(fresh(), "gone"), "/srv", "gone"), /gone/);
});

test("a tree is copied out under the name it gets on the host", async () => {
  const target = join(fresh(), "copy");
  await copyOut(
    [
      { name: "site/", type: "directory", mode: 0o750 },
      { name: "site/index.html", mode: 0o4755, content: "hello" },
      { name: "site/sub/", type: "directory", mode: 0o700 },
      { name: "site/sub/page", content: "page" },
      { name: "site/home", type: "symlink", linkname: "index.html" },
      { name: "site/device", type: "character-device", devmajor: 1, devminor: 3 },
    ],
    target,
  );
  assert.equal(readFileSync(join(target, "index.html"), "utf8"), "hello");
  assert.equal(statSync(join(target, "index.html")).mode & 0o7777, 0o755, "set-uid does not come along");
  assert.equal(readFileSync(join(target, "sub", "page"), "utf8"), "page");
  assert.equal(statSync(join(target, "sub")).mode & 0o777, 0o700);
  assert.equal(readlinkSync(join(target, "home")), "index.html");
  assert.ok(!existsSync(join(target, "device")));
});

test("a single file is copied out", async () => {
  const target = join(fresh(), "page.html");
  await copyOut([{ name: "site", content: "hello" }], target);
  assert.equal(readFileSync(target, "utf8"), "hello");
});

test("a guest can't write outside of what was asked for", async () => {
  const escapes: [string, (outside: string) => Entry[]][] = [
    ["by name", () => [{ name: "site/../../outside/file", content: "!" }]],
    ["by name, from the top", () => [{ name: "../outside/file", content: "!" }]],
    [
      "through a link",
      (outside) => [
        { name: "site/", type: "directory" },
        { name: "site/a", type: "symlink", linkname: outside },
        { name: "site/a/file", content: "!" },
      ],
    ],
    [
      "through a link as the top",
      (outside) => [
        { name: "site", type: "symlink", linkname: outside },
        { name: "site/file", content: "!" },
      ],
    ],
    [
      "through links in a row",
      (outside) => [
        { name: "site/", type: "directory" },
        { name: "site/a", type: "symlink", linkname: "." },
        { name: "site/a/b", type: "symlink", linkname: outside },
        { name: "site/a/b/file", content: "!" },
      ],
    ],
  ];
  for (const [how, entries] of escapes) {
    const where = fresh();
    const outside = join(where, "outside");
    mkdirSync(outside);
    await assert.rejects(copyOut(entries(outside), join(where, "target")), { code: "UNSAFE_ARCHIVE" }, how);
    assert.ok(!existsSync(join(outside, "file")), how);
  }
});

test("a guest's link is replaced, never followed: neither by a file nor by a directory's mode", async () => {
  const where = fresh();
  const outside = join(where, "outside");
  mkdirSync(outside, { mode: 0o755 });
  writeFileSync(join(outside, "file"), "mine");
  await copyOut(
    [
      { name: "site/", type: "directory" },
      { name: "site/f", type: "symlink", linkname: join(outside, "file") },
      { name: "site/f", content: "theirs" },
      { name: "site/d", type: "symlink", linkname: outside },
      { name: "site/d", type: "directory", mode: 0o777 },
    ],
    join(where, "target"),
  );
  assert.equal(readFileSync(join(outside, "file"), "utf8"), "mine");
  assert.equal(statSync(outside).mode & 0o777, 0o755);
  assert.ok(lstatSync(join(where, "target", "d")).isDirectory());
});

test("what is in the way is named", async () => {
  const target = fresh();
  mkdirSync(join(target, "home"));
  const copying = copyOut(
    [
      { name: "site/", type: "directory" },
      { name: "site/home", type: "symlink", linkname: "x" },
    ],
    target,
  );
  await assert.rejects(copying, { code: "FILE_FAILED", message: /home: something of another kind is in its place/ });
});

test("a place where no file can be made is named, and nowhere taken for a bug", async () => {
  const long = join(fresh(), "x".repeat(300));
  for (const target of ["/proc/copy", long]) {
    await assert.rejects(copyOut([{ name: "site", content: "hello" }], target), (error: unknown) => {
      assert.ok(error instanceof MvmError && error.code === "FILE_FAILED", String(error));
      return error.message.includes(target);
    });
  }
});
