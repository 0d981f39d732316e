import type { Socket } from "node:net";
import { pipeline } from "node:stream";
import { type AgentClient, responseOf } from "./agent-client.ts";

/**
 * Joins a host connection with a TCP port of the guest.
 * @throws MvmError `AGENT_FAILED` when nothing listens on that port in the guest
 */
export async function tunnel(client: AgentClient, connection: Socket, guestPort: number): Promise<void> {
  const stream = client.tunnel(`127.0.0.1:${guestPort}`);
  await responseOf(stream, `a connection to port ${guestPort}`);
  const ignoreReset = () => {}; // either side may end a connection at any time
  pipeline(connection, stream, ignoreReset);
  pipeline(stream, connection, ignoreReset);
}
