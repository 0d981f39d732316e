import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import type { Context } from "../core/context.ts";
import { messageOf } from "../core/errors.ts";
import type { InstanceName } from "../core/names.ts";
import type { AgentClient } from "../guest/agent-client.ts";
import { tunnel } from "../guest/forward.ts";
import type { PortForward } from "../hypervisor/driver.ts";
import { connectAgent, requireLive } from "./connect.ts";
import { portError } from "./ports.ts";

/**
 * Forwards host ports to a running instance until the context's signal. `onReady` is called when all of them listen,
 * with those that were chosen for a host port 0.
 * @throws MvmError `INSTANCE_NOT_RUNNING`, `PORT_IN_USE`
 */
export async function forwardPorts(
  ctx: Context,
  name: InstanceName,
  forwards: readonly PortForward[],
  onReady: (listening: readonly PortForward[]) => void,
): Promise<void> {
  await using client = await connectAgent(ctx, requireLive(ctx, name));
  const connections = new Set<Socket>();
  const servers: Server[] = [];
  try {
    for (const forward of forwards) servers.push(await listen(ctx, client, forward, connections));
    onReady(forwards.map((forward, index) => ({ ...forward, hostPort: portOf(servers[index]!) })));
    await Promise.race([aborted(ctx.signal), client.ended]);
  } finally {
    for (const server of servers) server.close();
    for (const connection of connections) connection.destroy();
  }
}

function listen(ctx: Context, client: AgentClient, forward: PortForward, connections: Set<Socket>): Promise<Server> {
  const { hostAddress, hostPort, guestPort } = forward;
  return new Promise((resolve, reject) => {
    const server = createServer({ allowHalfOpen: true }, (connection) => {
      connections.add(connection);
      connection.on("close", () => connections.delete(connection));
      tunnel(client, connection, guestPort).catch((error: unknown) => {
        connection.destroy();
        ctx.report({ kind: "note", text: messageOf(error) });
      });
    });
    server.once("error", (error) => reject(portError(error, hostAddress, hostPort, "")));
    server.listen({ host: hostAddress, port: hostPort }, () => resolve(server));
  });
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
