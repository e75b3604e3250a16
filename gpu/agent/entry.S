/* SPDX-License-Identifier: MIT */
/*
 * The way into the driver: a trampoline per function, which counts its thread in, calls the
 * driver's function, or the agent's in place of it (agent_gate_targets), with the arguments it was
 * called with, and counts the thread out. Where the gate is closed, agent_enter() holds the thread
 * before it is counted. See gate.c.
 *
 * It is a call with a frame of its own, so that return addresses, shadow stacks and unwinding are
 * as always. Arguments in registers stay where they are; r10, r11 and rax carry none.
 */
#include "functions.h"
#include "gate_abi.h"

	.text
	.p2align 4
	.globl agent_entries
	.hidden agent_entries
agent_entries:
	.set nr, 0

/* AGENT_GATE_ENTRY_BYTES each. */
#define ENTRY(name, words)                                       \
	.p2align 4; .globl name; .type name, @function; name:;   \
	endbr64; movl $nr, %r11d; jmp gate_call;                 \
	.size name, . - name; .set nr, nr + 1;

AGENT_FUNCTIONS(ENTRY)

	.rept AGENT_GATE_SPARE
	.p2align 4
	endbr64
	movl $nr, %r11d
	jmp gate_call
	.set nr, nr + 1
	.endr

	.p2align 5
	.type gate_call, @function
gate_call:
	.cfi_startproc
	pushq %rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	movq %rsp, %rbp
	.cfi_def_cfa_register %rbp
	movq agent_gate_self@gottpoff(%rip), %r10
	movq %fs:(%r10), %rax
	testq %rax, %rax
	jz .Lwait
	/* Counted first, then looked: whoever closes the gate does it the other way round. */
	lock incl AGENT_SLOT_INSIDE(%rax)
	cmpl $0, agent_gate_closed(%rip)
	jne .Lclosed
.Linside:
	incl %fs:AGENT_SELF_DEPTH(%r10)
	movl %r11d, AGENT_SLOT_FUNCTION(%rax)
	leaq agent_gate_words(%rip), %rax
	movzbl (%rax,%r11), %eax
	testl %eax, %eax
	jnz .Lcopy
.Lcall:
	leaq agent_gate_targets(%rip), %r10
	call *(%r10,%r11,8)
	movq agent_gate_self@gottpoff(%rip), %r10
	decl %fs:AGENT_SELF_DEPTH(%r10)
	movq %fs:(%r10), %r10
	lock decl AGENT_SLOT_INSIDE(%r10)
	leave
	.cfi_remember_state
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_restore_state

	/* rax words of arguments, which are above our return address. The stack stays aligned. */
.Lcopy:
	leal 1(%rax), %r10d
	andl $-2, %r10d
	shll $3, %r10d
	subq %r10, %rsp
1:	movq 8(%rbp,%rax,8), %r10
	movq %r10, -8(%rsp,%rax,8)
	decl %eax
	jnz 1b
	jmp .Lcall

.Lclosed:
	lock decl AGENT_SLOT_INSIDE(%rax)
.Lwait:
	subq $192, %rsp
	movq %rdi, (%rsp)
	movq %rsi, 8(%rsp)
	movq %rdx, 16(%rsp)
	movq %rcx, 24(%rsp)
	movq %r8, 32(%rsp)
	movq %r9, 40(%rsp)
	movq %r11, 48(%rsp)
	movups %xmm0, 64(%rsp)
	movups %xmm1, 80(%rsp)
	movups %xmm2, 96(%rsp)
	movups %xmm3, 112(%rsp)
	movups %xmm4, 128(%rsp)
	movups %xmm5, 144(%rsp)
	movups %xmm6, 160(%rsp)
	movups %xmm7, 176(%rsp)
	call agent_enter
	movq (%rsp), %rdi
	movq 8(%rsp), %rsi
	movq 16(%rsp), %rdx
	movq 24(%rsp), %rcx
	movq 32(%rsp), %r8
	movq 40(%rsp), %r9
	movq 48(%rsp), %r11
	movups 64(%rsp), %xmm0
	movups 80(%rsp), %xmm1
	movups 96(%rsp), %xmm2
	movups 112(%rsp), %xmm3
	movups 128(%rsp), %xmm4
	movups 144(%rsp), %xmm5
	movups 160(%rsp), %xmm6
	movups 176(%rsp), %xmm7
	addq $192, %rsp
	/* rax: the thread's slot, in which it is counted. */
	movq agent_gate_self@gottpoff(%rip), %r10
	jmp .Linside
	.cfi_endproc
	.size gate_call, . - gate_call

	.section .note.GNU-stack, "", @progbits
