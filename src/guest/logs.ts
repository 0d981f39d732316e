import { createInterface } from "node:readline";
import * as v from "valibot";
import { type AgentClient, responseOf } from "./agent-client.ts";

/** What services wrote: docs/agent-api.md, "logs". */
const LogLineSchema = v.object({
  service: v.string(),
  stream: v.picklist(["stdout", "stderr"]),
  timeMs: v.number(),
  text: v.string(),
});
export type LogLine = v.InferOutput<typeof LogLineSchema>;

/** Where an ended instance's service logs are kept, in its directory. */
export const SERVICES_LOG = "services.log";

export interface LogRequest {
  readonly service?: string;
  /** The last so many lines; all that the agent still has if not given. */
  readonly tail?: number;
  readonly follow?: boolean;
}

/** Calls `take` with each line; with `follow` until the signal or the guest ends it. */
export async function readLogs(
  client: AgentClient,
  request: LogRequest,
  take: (line: LogLine) => void,
  signal?: AbortSignal,
): Promise<void> {
  const query = new URLSearchParams({
    ...(request.service === undefined ? {} : { service: request.service }),
    ...(request.tail === undefined ? {} : { tail: String(request.tail) }),
    ...(request.follow ? { follow: "1" } : {}),
  });
  const stream = client.stream("GET", `/v1/logs?${query}`);
  await responseOf(stream, "logs");
  const stop = () => stream.destroy();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    for await (const text of createInterface({ input: stream })) {
      if (text !== "") take(v.parse(LogLineSchema, JSON.parse(text)));
    }
  } finally {
    signal?.removeEventListener("abort", stop);
  }
}

/** `web | listening on 8080`: one service's name before each line, as several may speak. */
export function renderLogLine(line: LogLine): string {
  return `${line.service} | ${line.text}\n`;
}
