import { Agent, type IncomingMessage, request } from "node:http";
import type { Socket } from "node:net";
import { MvmError, messageOf } from "../core/errors.ts";
import type { FirecrackerFeatures } from "./firecracker-version.ts";

/**
 * Firecracker's API, as far as it is used: HTTP with JSON over a Unix socket, described by
 * src/firecracker/swagger/firecracker.yaml in its repository (v1.12 to v1.16). Names are as they are there.
 */

export interface MachineConfiguration {
  readonly vcpu_count: number;
  readonly mem_size_mib: number;
}

export interface BootSource {
  readonly kernel_image_path: string;
  readonly initrd_path?: string;
  readonly boot_args: string;
}

export interface Drive {
  readonly drive_id: string;
  readonly path_on_host: string;
  readonly is_root_device: boolean;
  readonly is_read_only: boolean;
  /** `Writeback` flushes when the guest asks for it. `Unsafe`, the default, never does. */
  readonly cache_type: "Unsafe" | "Writeback";
}

export interface NetworkInterface {
  readonly iface_id: string;
  readonly host_dev_name: string;
  readonly guest_mac: string;
}

export interface Vsock {
  readonly guest_cid: number;
  readonly uds_path: string;
}

export interface Logger {
  readonly log_path: string;
  readonly level: "Error" | "Warning" | "Info" | "Debug";
}

export interface SnapshotLoad {
  readonly snapshot_path: string;
  readonly mem_backend: { readonly backend_type: "File"; readonly backend_path: string };
  readonly resume_vm: boolean;
  readonly network_overrides?: readonly { readonly iface_id: string; readonly host_dev_name: string }[];
  /** Left out where the version does not have it. */
  readonly vsock_override?: { readonly uds_path: string };
}

export interface SnapshotCreate {
  readonly snapshot_path: string;
  readonly mem_file_path: string;
}

/** Everything but a snapshot is answered at once. */
const TIMEOUT_MS = 5000;
/** A snapshot writes the whole memory: 32 GiB to a disk of 100 MB/s. */
const SNAPSHOT_TIMEOUT_MS = 330_000;
/** No answer of Firecracker comes near this. */
const MAX_ANSWER_CHARACTERS = 1024 * 1024;

/** A client of one Firecracker, on one connection, one request at a time. */
export class FirecrackerApi implements Disposable {
  readonly #agent: Agent;

  constructor(socket: Socket) {
    this.#agent = new Agent({ keepAlive: true, maxSockets: 1 });
    this.#agent.createConnection = () => socket;
  }

  async version(): Promise<string> {
    const answer = (await this.#send("GET", "/version")) as { firecracker_version?: unknown };
    return String(answer?.firecracker_version);
  }

  putMachineConfig = (config: MachineConfiguration) => this.#put("/machine-config", config);
  putBootSource = (source: BootSource) => this.#put("/boot-source", source);
  putDrive = (drive: Drive) => this.#put(`/drives/${drive.drive_id}`, drive);
  putNetworkInterface = (network: NetworkInterface) => this.#put(`/network-interfaces/${network.iface_id}`, network);
  putVsock = (vsock: Vsock) => this.#put("/vsock", vsock);
  putEntropy = () => this.#put("/entropy", {});
  putLogger = (logger: Logger) => this.#put("/logger", logger);
  putMetrics = (path: string) => this.#put("/metrics", { metrics_path: path });
  start = () => this.#put("/actions", { action_type: "InstanceStart" });
  pause = () => this.#send("PATCH", "/vm", { state: "Paused" });
  resume = () => this.#send("PATCH", "/vm", { state: "Resumed" });
  /** Of a paused VM: its state, and its whole memory. */
  createSnapshot = (snapshot: SnapshotCreate) =>
    this.#send("PUT", "/snapshot/create", { snapshot_type: "Full", ...snapshot }, SNAPSHOT_TIMEOUT_MS);

  /** On a Firecracker where nothing but logger and metrics was set. One that fails ends itself. */
  loadSnapshot({ vsock_override, ...load }: SnapshotLoad, features: FirecrackerFeatures): Promise<unknown> {
    const override = features.vsockOverride && vsock_override ? { vsock_override } : {};
    return this.#put("/snapshot/load", { ...load, ...override });
  }

  [Symbol.dispose](): void {
    this.#agent.destroy();
  }

  #put(path: string, body: object): Promise<unknown> {
    return this.#send("PUT", path, body);
  }

  /** @throws MvmError `HYPERVISOR_REFUSED` with Firecracker's reason; `HYPERVISOR_FAILED` if it ends or does not answer in time */
  async #send(method: string, path: string, body?: object, timeoutMs = TIMEOUT_MS): Promise<unknown> {
    const text = body === undefined ? "" : JSON.stringify(body);
    try {
      const { status, answer } = await this.#exchange(method, path, text, timeoutMs);
      if (status >= 200 && status < 300) return answer;
      const fault = (answer as { fault_message?: unknown } | undefined)?.fault_message;
      throw failed("HYPERVISOR_REFUSED", method, path, fault === undefined ? `it answered ${status}` : String(fault));
    } catch (error) {
      throw error instanceof MvmError ? error : failed("HYPERVISOR_FAILED", method, path, messageOf(error), error);
    }
  }

  #exchange(method: string, path: string, text: string, timeoutMs: number) {
    return new Promise<{ status: number; answer: unknown }>((resolve, reject) => {
      const headers = {
        Accept: "application/json",
        ...(text ? { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(text) } : {}),
      };
      const sent = request({ agent: this.#agent, host: "localhost", method, path, headers });
      const timer = setTimeout(() => sent.destroy(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
      const settle = (act: () => void) => {
        clearTimeout(timer);
        act();
      };
      sent.on("error", (error) => settle(() => reject(error)));
      sent.on("response", (response) =>
        readJson(response).then(
          (answer) => settle(() => resolve({ status: response.statusCode ?? 0, answer })),
          (error: unknown) => settle(() => reject(error)),
        ),
      );
      sent.end(text);
    });
  }
}

async function readJson(response: IncomingMessage): Promise<unknown> {
  let text = "";
  response.setEncoding("utf8");
  for await (const chunk of response) {
    text += chunk;
    if (text.length > MAX_ANSWER_CHARACTERS) throw new Error("the answer has no end");
  }
  return text === "" ? undefined : JSON.parse(text);
}

function failed(code: string, method: string, path: string, why: string, cause?: unknown): MvmError {
  return new MvmError(code, `Firecracker could not carry out '${method} ${path}': ${why}`, {
    hint: "`mvmctl logs NAME --hypervisor` shows what Firecracker said",
    cause,
  });
}
