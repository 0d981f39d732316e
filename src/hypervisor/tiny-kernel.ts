/** The smallest guest that proves that KVM runs ordinary ones: 64-bit code in an ELF file, as Firecracker boots it. */

/** What the guest writes to its serial console. A guest that crashed ends Firecracker just as quietly, and says nothing. */
export const KVM_MARK = "mvm:kvm-works";

const HEADER_BYTES = 64;
const PROGRAM_HEADER_BYTES = 56;
/** Firecracker loads kernels from here on (HIMEM_START in its x86_64 layout). */
const LOAD_ADDRESS = 0x100_0000n;
const CODE_OFFSET = 0x1000;

export function tinyKernel(): Buffer {
  return elfKernel(machineCode());
}

/** A kernel that is just this code. */
export function elfKernel(code: readonly number[]): Buffer {
  const file = Buffer.alloc(CODE_OFFSET + code.length);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // ELF, 64 bits, little-endian, version 1
  file.writeUInt16LE(2, 16); // e_type: executable
  file.writeUInt16LE(62, 18); // e_machine: x86-64
  file.writeUInt32LE(1, 20); // e_version
  file.writeBigUInt64LE(LOAD_ADDRESS, 24); // e_entry
  file.writeBigUInt64LE(BigInt(HEADER_BYTES), 32); // e_phoff
  file.writeUInt16LE(HEADER_BYTES, 52); // e_ehsize
  file.writeUInt16LE(PROGRAM_HEADER_BYTES, 54); // e_phentsize
  file.writeUInt16LE(1, 56); // e_phnum
  file.writeUInt32LE(1, HEADER_BYTES); // p_type: PT_LOAD
  file.writeUInt32LE(5, HEADER_BYTES + 4); // p_flags: readable, executable
  file.writeBigUInt64LE(BigInt(CODE_OFFSET), HEADER_BYTES + 8); // p_offset
  file.writeBigUInt64LE(LOAD_ADDRESS, HEADER_BYTES + 16); // p_vaddr
  file.writeBigUInt64LE(LOAD_ADDRESS, HEADER_BYTES + 24); // p_paddr
  file.writeBigUInt64LE(BigInt(code.length), HEADER_BYTES + 32); // p_filesz
  file.writeBigUInt64LE(BigInt(code.length), HEADER_BYTES + 40); // p_memsz
  file.writeBigUInt64LE(0x1000n, HEADER_BYTES + 48); // p_align
  file.set(code, CODE_OFFSET);
  return file;
}

/** Writes the mark to the first serial port, and resets the machine by the keyboard controller, which ends Firecracker. */
function machineCode(): number[] {
  const toSerialPort = [0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
  const write = [...Buffer.from(`${KVM_MARK}\n`)].flatMap((byte) => [0xb0, byte, 0xee]); // mov al, byte; out dx, al
  const reset = [0xb0, 0xfe, 0xe6, 0x64]; // mov al, 0xfe; out 0x64, al
  return [...toSerialPort, ...write, ...reset, 0xf4, 0xeb, 0xfd]; // hlt; jmp to it
}

const PT_INTERP = 3;

/** Whether an executable needs a dynamic linker: it names one in its program headers (elf(5)). */
export function isDynamic(head: Buffer): boolean {
  if (head.length < HEADER_BYTES || head.readUInt32BE(0) !== 0x7f454c46) return false;
  const offset = Number(head.readBigUInt64LE(32));
  const size = head.readUInt16LE(54);
  const count = head.readUInt16LE(56);
  return Array.from({ length: count }, (_, index) => offset + index * size)
    .filter((at) => at + 4 <= head.length)
    .some((at) => head.readUInt32LE(at) === PT_INTERP);
}
