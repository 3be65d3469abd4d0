// An operating system for one program of one thread, statically linked with musl: it reads the file "in", writes the
// file "out", and has the few system calls of Linux that this takes. What it writes goes to the serial port, "out" as
// hexadecimal digits between the lines BEGIN and END. The multiboot modules are the program and its input.
#include <stdint.h>

enum { IN = 3, OUT = 4, COM1 = 0x3f8, PROGRAM_BYTES = 64 << 20 };

void on_syscall(void), on_fault(void), enter(uint64_t address, uint64_t* stack);
extern uint64_t idt[][2];

static uint8_t *input, *input_end;
static uint64_t heap, mapped;  // where the next memory of brk and of mmap begins

static void out_byte(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
static uint8_t in_byte(uint16_t port) {
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static void write_msr(uint32_t which, uint64_t value) {
    __asm__ volatile("wrmsr" ::"c"(which), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static void put(char c) {
    while (!(in_byte(COM1 + 5) & 0x20)) {}
    out_byte(COM1, (uint8_t)c);
}
static void print(const char* text) {
    while (*text) put(*text++);
}
static void print_hex(const uint8_t* bytes, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) put("0123456789abcdef"[bytes[i] >> 4]), put("0123456789abcdef"[bytes[i] & 15]);
}
static void copy(uint8_t* to, const uint8_t* from, uint64_t n) { __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n)::"memory"); }
static void clear(uint64_t at, uint64_t n) { __asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(0) : "memory"); }

static void power_off(void) {
    while (!(in_byte(COM1 + 5) & 0x40)) {}  // all is sent
    for (const char* text = "Shutdown"; *text; text++) out_byte(0x8900, (uint8_t)*text);  // Bochs' own way
    for (;;) __asm__ volatile("hlt");
}
void fail(uint64_t* stack) {
    print("\nFAULT, error code and address or address and segment: ");
    print_hex((uint8_t*)stack, 16);
    power_off();
}

static uint64_t read(uint8_t* to, uint64_t n) {
    if (n > (uint64_t)(input_end - input)) n = (uint64_t)(input_end - input);
    copy(to, input, n);
    input += n;
    return n;
}
static uint64_t write(uint64_t file, const uint8_t* from, uint64_t n) {
    if (file == OUT) print_hex(from, n);
    else for (uint64_t i = 0; i < n; i++) put((char)from[i]);
    return n;
}
struct buffer {
    uint8_t* bytes;
    uint64_t n;
};

// A system call of Linux on x86-64; -38 (ENOSYS) for what is not here.
int64_t serve(uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
    uint64_t total = 0;
    switch (number) {
        case 0: return (int64_t)read((uint8_t*)b, c);
        case 1: return (int64_t)write(a, (uint8_t*)b, c);
        case 2: return *(char*)a == 'i' ? IN : OUT;  // open
        case 9:                                      // mmap
            mapped += (b + 4095) & ~4095ull;
            clear(mapped - ((b + 4095) & ~4095ull), b);
            return (int64_t)(mapped - ((b + 4095) & ~4095ull));
        case 12:  // brk
            if (a > heap) clear(heap, a - heap), heap = a;
            return (int64_t)heap;
        case 19:  // readv
            for (struct buffer* part = (struct buffer*)b; c--; part++) total += read(part->bytes, part->n);
            return (int64_t)total;
        case 20:  // writev
            for (struct buffer* part = (struct buffer*)b; c--; part++) total += write(a, part->bytes, part->n);
            return (int64_t)total;
        case 3: case 10: case 11: case 13: case 14: case 28: return 0;  // close, memory and signals: nothing to do
        case 158: write_msr(0xC0000100, b); return 0;                   // arch_prctl: the thread's own memory
        case 218: return 1;                                             // set_tid_address
        case 60: case 231: print(a ? "\nFAILED\n" : "\nEND\n"); power_off();
    }
    return -38;
}

void start(uint32_t* information) {
    out_byte(COM1 + 3, 0x80), out_byte(COM1, 1), out_byte(COM1 + 1, 0), out_byte(COM1 + 3, 3);  // 115,200 baud, 8 bits
    uint64_t handler = (uint64_t)on_fault;
    for (int i = 0; i < 32; i++) idt[i][0] = (handler & 0xffff) | 8 << 16 | 0x8e00ull << 32 | (handler >> 16) << 48;
    write_msr(0xC0000081, 8ull << 32), write_msr(0xC0000082, (uint64_t)on_syscall), write_msr(0xC0000084, 0x700);
    uint32_t(*modules)[4] = (uint32_t(*)[4])(uint64_t)information[6];
    uint8_t* elf = (uint8_t*)(uint64_t)modules[0][0];
    input = (uint8_t*)(uint64_t)modules[1][0], input_end = (uint8_t*)(uint64_t)modules[1][1];
    uint64_t entry = *(uint64_t*)(elf + 24), headers = *(uint64_t*)(elf + 32), placed = 0;
    uint16_t n_headers = *(uint16_t*)(elf + 56);
    for (int i = 0; i < n_headers; i++) {
        uint8_t* header = elf + headers + 56 * i;
        if (*(uint32_t*)header != 1) continue;  // PT_LOAD
        uint64_t offset = *(uint64_t*)(header + 8), at = *(uint64_t*)(header + 16);
        uint64_t n = *(uint64_t*)(header + 32), n_memory = *(uint64_t*)(header + 40);
        copy((uint8_t*)at, elf + offset, n), clear(at + n, n_memory - n);
        if (offset == 0) placed = at + headers;
        heap = (at + n_memory + 4095) & ~4095ull;
    }
    mapped = heap + PROGRAM_BYTES;
    static uint64_t stack[1 << 18] __attribute__((aligned(16)));
    static uint64_t random[2] = {1, 2};
    const uint64_t begin[] = {3, (uint64_t)"program", (uint64_t)"in", (uint64_t)"out", 0, 0,  // arguments, environment
                              3, placed, 4, 56, 5, n_headers, 6, 4096, 9, entry, 25, (uint64_t)random, 0, 0};
    uint64_t* top = stack + (1 << 18) - 32;
    copy((uint8_t*)top, (const uint8_t*)begin, sizeof begin);
    print("\nBEGIN\n");
    enter(entry, top);
}
