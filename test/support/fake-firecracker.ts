import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { misfit, type Operation, operations } from "./firecracker-description.ts";

/**
 * A stand-in for Firecracker's API server, for machines where no Firecracker runs: it runs no guest, and checks every
 * request's method, path and body against the published description of its version, and whether it is its time.
 */
export interface FakeFirecracker extends AsyncDisposable {
  readonly socket: string;
  /** What was asked, `METHOD /path`, and the body; refused ones too. */
  readonly requests: { readonly call: string; readonly body: unknown }[];
}

export async function startFakeFirecracker(version: string): Promise<FakeFirecracker> {
  const directory = mkdtempSync(join(tmpdir(), "mvm-fake-fc-"));
  const socket = join(directory, "api.sock");
  const known = operations(Number(version.split(".")[1]));
  const requests: { call: string; body: unknown }[] = [];
  let state: "Not started" | "Running" | "Paused" = "Not started";

  /** What is wrong with a request, or undefined; follows it where it changes the state. */
  function judge(call: string, body: unknown): string | undefined {
    const operation = find(known, call);
    if (!operation) return `Invalid request method and/or path: ${call}.`;
    if (!operation.body !== (body === undefined))
      return "a body where there should be none, or none where there should be one";
    const wrong = operation.body && misfit(operation.body, body);
    if (wrong) return `An error occurred when deserializing the json body of a request: ${wrong}.`;
    const idInPath = /^PUT \/(?:drives|network-interfaces)\/(.+)$/.exec(call)?.[1];
    const fields = (body ?? {}) as Record<string, unknown>;
    if (idInPath && idInPath !== (fields["drive_id"] ?? fields["iface_id"]))
      return "The id from the path does not match the id from the body!";
    if (operation.when === "before" && state !== "Not started")
      return "The requested operation is not supported after starting the microVM.";
    if (operation.when === "after" && state === "Not started")
      return "The requested operation is not supported before starting the microVM.";
    if (call === "PUT /snapshot/create" && state !== "Paused") return "Cannot create snapshot while the VM runs";
    if (fields["action_type"] === "InstanceStart") state = "Running";
    if (call === "PATCH /vm") state = fields["state"] === "Paused" ? "Paused" : "Running";
    if (call === "PUT /snapshot/load") state = fields["resume_vm"] === true ? "Running" : "Paused";
    return undefined;
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let text = "";
    for await (const chunk of request) text += chunk;
    const call = `${request.method} ${request.url}`;
    const body: unknown = text === "" ? undefined : JSON.parse(text);
    requests.push({ call, body });
    const fault = judge(call, body);
    if (fault !== undefined) response.writeHead(400).end(JSON.stringify({ fault_message: fault }));
    else if (call === "GET /version") response.writeHead(200).end(JSON.stringify({ firecracker_version: version }));
    else response.writeHead(204).end();
  }

  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  return {
    socket,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function find(known: Record<string, Operation>, call: string): Operation | undefined {
  return (
    known[call] ??
    known[
      call
        .replace(/^PUT \/drives\/[^/]+$/, "PUT /drives/{drive_id}")
        .replace(/^PUT \/network-interfaces\/[^/]+$/, "PUT /network-interfaces/{iface_id}")
    ]
  );
}
