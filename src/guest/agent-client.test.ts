import assert from "node:assert/strict";
import { test } from "node:test";
import { answerJson, useFakeAgent } from "../../test/support/fake-agent.ts";
import { AgentClient } from "./agent-client.ts";
import { type LogLine, readLogs, renderLogLine } from "./logs.ts";

type Answer = Parameters<typeof useFakeAgent>[0];

/** Talks to an agent that answers like this. */
async function talk<T>(answer: Answer, use: (client: AgentClient) => Promise<T>): Promise<T> {
  await using guest = await useFakeAgent(answer);
  await using client = await AgentClient.open(guest.endpoint, { deadlineMs: Date.now() + 10_000 });
  return await use(client);
}

const healthy = { status: "healthy", generation: 1, phase: "running", services: {}, checks: {} };

test("requests go side by side over one connection", async () => {
  const statuses = await talk(
    (stream) => setImmediate(() => answerJson(stream, healthy)),
    (client) => Promise.all([client.health(0), client.health(0), client.health(0)]),
  );
  assert.deepEqual(
    statuses.map(({ status }) => status),
    ["healthy", "healthy", "healthy"],
  );
});

test("the agent's own refusal is told with its code", async () => {
  const refused = talk(
    (stream) => answerJson(stream, { code: "NOT_FOUND", message: "there is no service web" }, 404),
    (client) => client.restartService("web"),
  );
  await assert.rejects(refused, { code: "AGENT_NOT_FOUND", message: /refused POST .*there is no service web/ });
});

test("an answer that does not keep the contract is the agent's failure", async () => {
  const answers: Answer[] = [
    (stream) => answerJson(stream, { ...healthy, status: "fine" }),
    (stream) => answerJson(stream, "no object"),
    (stream) => {
      stream.respond({ ":status": 200 });
      stream.end("{");
    },
    (stream) => answerJson(stream, { error: "unheard of" }, 500),
    (stream) => stream.close(2),
    (stream) => stream.session?.destroy(),
  ];
  for (const answer of answers)
    await assert.rejects(
      talk(answer, (client) => client.health(0)),
      { code: "AGENT_FAILED" },
    );
});

test("an endless answer is cut off", async () => {
  const flood = talk(
    (stream) => {
      stream.respond({ ":status": 200 });
      const pour = () => {
        while (!stream.destroyed && stream.write(Buffer.alloc(65_536, " "))) {
          // until the window is full
        }
        stream.once("drain", pour);
      };
      pour();
    },
    (client) => client.health(0),
  );
  await assert.rejects(flood, { code: "AGENT_FAILED", message: /longer than/ });
});

test("a cancelled request ends with the reason", async () => {
  const abort = new AbortController();
  const waiting = talk(
    () => abort.abort(new Error("Ctrl+C")),
    (client) => client.health(60_000, abort.signal),
  );
  await assert.rejects(waiting, /Ctrl\+C/);
});

test("the end of the connection is noticed", async () => {
  await talk(
    (stream) => stream.session?.destroy(),
    async (client) => {
      await assert.rejects(client.health(0));
      await client.ended;
      await assert.rejects(client.health(0), { code: "AGENT_FAILED" });
    },
  );
});

test("services' logs are read line by line, each with its service's name before it", async () => {
  const lines = [
    { service: "web", stream: "stdout", timeMs: 1, text: "listening" },
    { service: "db", stream: "stderr", timeMs: 2, text: "ready" },
  ];
  const read: LogLine[] = [];
  await talk(
    (stream) => {
      stream.respond({ ":status": 200 });
      stream.end(lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
    },
    (client) => readLogs(client, {}, (line) => read.push(line)),
  );
  assert.equal(read.map(renderLogLine).join(""), "web | listening\ndb | ready\n");
});
