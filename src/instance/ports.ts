import { createServer, isIPv4 } from "node:net";
import { isErrno, MvmError } from "../core/errors.ts";
import type { PortForward } from "../hypervisor/driver.ts";

/** Published ports are the machine's own, not the network's, unless an address says so. */
const DEFAULT_ADDRESS = "127.0.0.1";

/** Parses `HOST:GUEST` or `ADDRESS:HOST:GUEST`. @throws MvmError `INVALID_PORT` */
export function parsePortForward(text: string): PortForward {
  const match = /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})$/.exec(text);
  const hostAddress = match?.[1] ?? DEFAULT_ADDRESS;
  const hostPort = Number(match?.[2]);
  const guestPort = Number(match?.[3]);
  if (isIPv4(hostAddress) && isPort(hostPort) && isPort(guestPort)) return { hostAddress, hostPort, guestPort };
  throw new MvmError("INVALID_PORT", `'${text}' is not a port mapping`, {
    hint: "write HOST:GUEST, for example 8080:80, with ports from 1 to 65535",
  });
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}

/**
 * Finds out before anything is started whether the host ports are free.
 * @throws MvmError `PORT_IN_USE`, naming the port; `INVALID_PORT` for one that is published twice
 */
export async function requireFreePorts(ports: readonly PortForward[]): Promise<void> {
  const twice = ports.find((port, index) => ports.slice(0, index).some((earlier) => collide(port, earlier)));
  if (twice) {
    throw new MvmError("INVALID_PORT", `the host port ${twice.hostPort} is published twice`, {
      hint: "give each -p a host port of its own",
    });
  }
  for (const { hostAddress, hostPort } of ports) {
    try {
      await listenOnce(hostAddress, hostPort);
    } catch (error) {
      throw portError(error, hostAddress, hostPort);
    }
  }
}

/** One port of one address takes one listener; 0.0.0.0 is every address (ip(7)). */
function collide(a: PortForward, b: PortForward): boolean {
  if (a.hostPort !== b.hostPort) return false;
  return a.hostAddress === b.hostAddress || [a.hostAddress, b.hostAddress].includes("0.0.0.0");
}

function listenOnce(host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve()));
  });
}

/** A failed bind in the words of whoever published the port. */
export function portError(error: unknown, address: string, port: number): unknown {
  if (isErrno(error, "EADDRINUSE")) {
    return new MvmError("PORT_IN_USE", `port ${port} of ${address} is in use by another program`, {
      hint: `choose another host port: -p ${port < 65535 ? port + 1 : port - 1}:GUEST`,
      cause: error,
    });
  }
  if (isErrno(error, "EACCES")) {
    return new MvmError("PORT_FORBIDDEN", `port ${port} is reserved for root`, {
      hint: "choose a host port from 1024 on",
      cause: error,
    });
  }
  if (isErrno(error, "EADDRNOTAVAIL")) {
    return new MvmError("INVALID_PORT", `${address} is no address of this machine`, {
      hint: "use 127.0.0.1 or 0.0.0.0",
      cause: error,
    });
  }
  return error;
}
