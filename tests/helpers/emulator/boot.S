# Starts by the multiboot protocol in 32 bits, goes to 64 bits with the first GiB of memory where it is (pages of 2 MiB),
# lets programs use the vector units up to AVX-512 and AMX, and calls start(multiboot information).

.section .multiboot, "a"
.align 4
.long 0x1BADB002, 3, -(0x1BADB002 + 3)

.text
.code32
.globl _start
_start:
  cli
  mov %ebx, information
  movl $pdpt + 7, pml4
  movl $directory + 7, pdpt
  xor %ecx, %ecx
1: mov %ecx, %eax
  shl $21, %eax
  or $0x87, %eax                # present, writable, large
  mov %eax, directory(, %ecx, 8)
  inc %ecx
  cmp $512, %ecx
  jne 1b
  mov $pml4, %eax
  mov %eax, %cr3
  mov %cr4, %eax
  or $0x40620, %eax             # PAE, OSFXSR, OSXMMEXCPT, OSXSAVE
  mov %eax, %cr4
  mov $0xC0000080, %ecx         # EFER: 64 bits, the instruction syscall
  rdmsr
  or $0x101, %eax
  wrmsr
  mov %cr0, %eax
  and $~4, %eax                 # an x87 is there
  or $0x80000022, %eax          # paging, its errors are exceptions
  mov %eax, %cr0
  lgdt gdt_place
  ljmp $8, $in_64_bits

.code64
in_64_bits:
  mov $16, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov $stack_end, %rsp
  mov $13, %eax                 # XCR0: all that this processor has
  xor %ecx, %ecx
  cpuid
  and $0x602e7, %eax            # x87, SSE, AVX, AVX-512, AMX
  xor %ecx, %ecx
  xor %edx, %edx
  xsetbv
  fninit
  lidt idt_place
  mov information, %edi
  call start

.globl enter
enter:                          # (address, stack)
  mov %rsi, %rsp
  xor %edx, %edx
  jmp *%rdi

.globl on_syscall
on_syscall:                     # rax: number; rdi, rsi, rdx: arguments; rcx: where to go on. There is a red zone.
  lea -128(%rsp), %rsp
  push %rcx
  push %rdi
  push %rsi
  push %rdx
  push %r8
  push %r9
  push %r10
  push %r11
  push %rbx
  mov %rsp, %rbx
  and $-16, %rsp
  mov %rdx, %rcx
  mov %rsi, %rdx
  mov %rdi, %rsi
  mov %rax, %rdi
  call serve
  mov %rbx, %rsp
  pop %rbx
  pop %r11
  pop %r10
  pop %r9
  pop %r8
  pop %rdx
  pop %rsi
  pop %rdi
  pop %rcx
  lea 128(%rsp), %rsp
  jmp *%rcx

.globl on_fault
on_fault:
  mov %rsp, %rdi
  and $-16, %rsp
  call fail

.data
.align 8
gdt: .quad 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF
gdt_place:
  .word 23
  .long gdt, 0
idt_place:
  .word 4095
  .quad idt
information: .long 0

.bss
.align 4096
pml4: .skip 4096
pdpt: .skip 4096
directory: .skip 4096
.globl idt
idt: .skip 4096
.skip 65536
stack_end:
