import { type AddressInfo, createServer, isIPv4, type Server } from "node:net";
import { isErrno, MvmError } from "../core/errors.ts";
import type { PortForward } from "../hypervisor/driver.ts";

/** Published ports are the machine's own, not the network's, unless an address says so. */
const DEFAULT_ADDRESS = "127.0.0.1";

/** As a host port: one that is free, which is chosen when it is published. */
const ANY_PORT = 0;

/** Whether any host port will do. */
export function isOpen({ hostPort }: PortForward): boolean {
  return hostPort === ANY_PORT;
}

/** Parses `GUEST`, `HOST:GUEST` or `ADDRESS:HOST:GUEST`, with 0 or, behind an address, nothing for any host port. @throws MvmError `INVALID_PORT` */
export function parsePortForward(text: string): PortForward {
  const match = /^(?:([\d.]+):(\d{0,5}):|(\d{1,5}):)?(\d{1,5})$/.exec(text);
  const [, hostAddress = DEFAULT_ADDRESS, behindAddress, alone] = match ?? [];
  const hostPort = Number(behindAddress || alone || ANY_PORT);
  const guestPort = Number(match?.[4]);
  const isHostPort = hostPort === ANY_PORT || isPort(hostPort);
  if (isIPv4(hostAddress) && isHostPort && isPort(guestPort)) return { hostAddress, hostPort, guestPort };
  throw new MvmError("INVALID_PORT", `'${text}' is not a port mapping`, {
    hint: "write HOST:GUEST, for example 8080:80, or GUEST for any free host port, with ports from 1 to 65535",
  });
}

function isPort(port: number): boolean {
  return Number.isInteger(port) && port >= 1 && port <= 65535;
}

/**
 * Finds out before anything is started whether the host ports are free, and chooses those that were left open.
 * @param instanceWith the instance that has published a port, if it is one of ours
 * @throws MvmError `PORT_IN_USE`, naming the port; `INVALID_PORT` for one that is published twice
 */
export async function choosePorts(
  ports: readonly PortForward[],
  instanceWith: (hostPort: number) => string | undefined = () => undefined,
): Promise<PortForward[]> {
  const fixed = ports.filter((port) => !isOpen(port));
  const twice = fixed.find((port, index) => fixed.slice(0, index).some((earlier) => collide(port, earlier)));
  if (twice) {
    throw new MvmError("INVALID_PORT", `the host port ${twice.hostPort} is published twice`, {
      hint: "give each -p a host port of its own",
    });
  }
  const chosen = [...ports];
  // All are held until the last is known: none is chosen twice. Those that were named come first, before chance takes one.
  const held: Server[] = [];
  const order = [...ports.keys()].sort((a, b) => Number(isOpen(ports[a]!)) - Number(isOpen(ports[b]!)));
  try {
    for (const index of order) {
      const port = ports[index]!;
      const server = await hold(port).catch((error: unknown) => {
        throw ofInstance(error, port, instanceWith(port.hostPort));
      });
      held.push(server);
      chosen[index] = { ...port, hostPort: (server.address() as AddressInfo).port };
    }
  } finally {
    await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))));
  }
  return chosen;
}

/** One port of one address takes one listener; 0.0.0.0 is every address (ip(7)). */
function collide(a: PortForward, b: PortForward): boolean {
  if (a.hostPort !== b.hostPort) return false;
  return a.hostAddress === b.hostAddress || [a.hostAddress, b.hostAddress].includes("0.0.0.0");
}

function hold({ hostAddress, hostPort }: PortForward): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", (error) => reject(portError(error, hostAddress, hostPort)));
    server.listen({ host: hostAddress, port: hostPort, exclusive: true }, () => resolve(server));
  });
}

function ofInstance(error: unknown, { hostAddress, hostPort }: PortForward, instance: string | undefined): unknown {
  if (instance === undefined || !(error instanceof MvmError) || error.code !== "PORT_IN_USE") return error;
  return new MvmError("PORT_IN_USE", `port ${hostPort} of ${hostAddress} is published by the instance '${instance}'`, {
    hint: `${error.hint}, or stop that one: mvmctl stop ${instance}`,
    cause: error,
  });
}

/** A failed bind in the words of whoever published the port; `option` stands before a mapping where it is typed. */
export function portError(error: unknown, address: string, port: number, option = "-p "): unknown {
  if (isErrno(error, "EADDRINUSE")) {
    return new MvmError("PORT_IN_USE", `port ${port} of ${address} is in use by another program`, {
      hint: `choose another host port: ${option}${port < 65535 ? port + 1 : port - 1}:GUEST`,
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
