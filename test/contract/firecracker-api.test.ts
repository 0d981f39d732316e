import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { connectUnix } from "../../src/core/unix-socket.ts";
import { FirecrackerApi, type SnapshotLoad } from "../../src/hypervisor/firecracker-api.ts";
import { firecrackerFeatures } from "../../src/hypervisor/firecracker-version.ts";
import { startFakeFirecracker } from "../support/fake-firecracker.ts";
import { findFirecracker, startRealFirecracker } from "../support/real-firecracker.ts";

const open = async (socket: string) => new FirecrackerApi(await connectUnix(socket, { deadlineMs: Date.now() + 5000 }));

/** Files that a configuration names: Firecracker opens them when it is told of them. */
function useFiles() {
  const directory = mkdtempSync(join(tmpdir(), "mvm-fc-files-"));
  const file = (name: string) => {
    writeFileSync(join(directory, name), Buffer.alloc(4096));
    return join(directory, name);
  };
  return { directory, file, [Symbol.dispose]: () => rmSync(directory, { recursive: true, force: true }) };
}

/** All that is set before a boot, but for the network, whose tap must be there. */
async function configure(api: FirecrackerApi, { directory, file }: ReturnType<typeof useFiles>): Promise<void> {
  await api.putLogger({ log_path: file("log"), level: "Info" });
  await api.putMetrics(file("metrics"));
  await api.putMachineConfig({ vcpu_count: 2, mem_size_mib: 256 });
  await api.putBootSource({
    kernel_image_path: file("kernel"),
    initrd_path: file("initrd"),
    boot_args: "console=ttyS0 reboot=k",
  });
  const root = { drive_id: "root", path_on_host: file("rootfs"), is_root_device: true, is_read_only: true } as const;
  await api.putDrive({ ...root, cache_type: "Unsafe" });
  const data = { drive_id: "data", path_on_host: file("data"), is_root_device: false, is_read_only: false } as const;
  await api.putDrive({ ...data, cache_type: "Writeback" });
  await api.putVsock({ guest_cid: 3, uds_path: join(directory, "v.sock") });
  await api.putEntropy();
}

const load: SnapshotLoad = {
  snapshot_path: "/vm/vmstate",
  mem_backend: { backend_type: "File", backend_path: "/vm/memory" },
  resume_vm: true,
  network_overrides: [{ iface_id: "eth0", host_dev_name: "tap0" }],
  vsock_override: { uds_path: "/run/v.sock" },
};

for (const version of ["1.12.0", "1.14.4", "1.16.1"]) {
  test(`the life of a VM fits the API's description (stand-in for ${version})`, async () => {
    await using fake = await startFakeFirecracker(version);
    using files = useFiles();
    using api = await open(fake.socket);
    assert.equal(await api.version(), version);
    await configure(api, files);
    await api.putNetworkInterface({ iface_id: "eth0", host_dev_name: "tap0", guest_mac: "06:00:00:00:00:01" });
    await api.start();
    await api.pause();
    await api.createSnapshot({ snapshot_path: "/run/vmstate", mem_file_path: "/vm/memory" });
    await api.resume();
    assert.deepEqual(fake.requests.at(-1), { call: "PATCH /vm", body: { state: "Resumed" } });
  });

  test(`a restore fits the API's description (stand-in for ${version})`, async () => {
    await using fake = await startFakeFirecracker(version);
    using api = await open(fake.socket);
    await api.loadSnapshot(load, firecrackerFeatures(version));
    const { vsock_override, ...everywhere } = load;
    const expected = version === "1.16.1" ? { ...everywhere, vsock_override } : everywhere;
    assert.deepEqual(fake.requests, [{ call: "PUT /snapshot/load", body: expected }]);
    await api.pause();
  });
}

test("what the version does not have is refused (stand-in for 1.12.0)", async () => {
  await using fake = await startFakeFirecracker("1.12.0");
  using api = await open(fake.socket);
  const refused = { code: "HYPERVISOR_REFUSED", message: /PUT \/snapshot\/load.*vsock_override/ };
  await assert.rejects(api.loadSnapshot(load, firecrackerFeatures("1.16.1")), refused);
});

const binary = findFirecracker();
const skip = binary ? false : "there is no Firecracker here (MVM_FC_BIN, or `firecracker` on the PATH)";

test("a real Firecracker takes the configuration", { skip }, async () => {
  await using real = await startRealFirecracker(binary!);
  using files = useFiles();
  using api = await open(real.socket);
  assert.equal(await api.version(), real.version);
  await configure(api, files);
});

test("a real Firecracker refuses with a sentence", { skip }, async () => {
  await using real = await startRealFirecracker(binary!);
  using api = await open(real.socket);
  const missing = { kernel_image_path: join(real.directory, "none"), boot_args: "" };
  await assert.rejects(api.putBootSource(missing), {
    code: "HYPERVISOR_REFUSED",
    message: /'PUT \/boot-source': .*kernel file cannot be opened/,
  });
  await assert.rejects(api.putMachineConfig({ vcpu_count: 99, mem_size_mib: 256 }), { code: "HYPERVISOR_REFUSED" });
  await assert.rejects(api.pause(), { code: "HYPERVISOR_REFUSED", message: /not supported before starting/ });
});

test("a real Firecracker knows every field of a restore, and ends at a snapshot that is none", { skip }, async () => {
  await using real = await startRealFirecracker(binary!);
  using files = useFiles();
  using api = await open(real.socket);
  const files4k = { ...load, snapshot_path: files.file("vmstate") };
  const failure = await api.loadSnapshot(files4k, firecrackerFeatures(real.version)).then(
    () => assert.fail("it loaded zeros"),
    (error: Error) => error.message,
  );
  assert.match(failure, /PUT \/snapshot\/load/);
  assert.doesNotMatch(failure, /unknown field|missing field/);
});
