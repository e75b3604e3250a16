#!/bin/bash
# SPDX-License-Identifier: MIT
# The way through the agent into the driver changes nothing: arguments in registers and on the stack,
# structures and floats, functions that no table has, calls from within calls. A thread that is
# cancelled in the driver leaves it. A call that does not end makes a park fail in time, with its
# name, and nothing has happened; a process whose CUDA somebody has left locked is unlocked.
. "$(dirname "$0")/gpu.sh"

D=$W
need_ckfast
command -v "${CC:-gcc}" >/dev/null || skip "no compiler"

arguments() {
	mkdir -p fake
	cat >driver.c <<-'END'
		struct handle { char b[64]; };
		typedef int (*back)(int);
		#define S(a, b) (*sum = *sum * 31 + (long)(a) * (b))
		int cuGetProcAddress_v2(const char *name, void **fn, int version, unsigned long flags, int *status);
		int cuLaunchKernel(long *sum, int b, int c, int d, int e, int f, int g, int h, long i, long *j, long k)
		{ S(b, c); S(d, e); S(f, g); S(h, i); S(*j, k); return 1; }
		int cuIpcOpenMemHandle_v2(long *sum, struct handle h, int flags)
		{ for (int i = 0; i < 64; i++) S(h.b[i], i); S(flags, 1); return 2; }
		int cuParamSetf(long *sum, int b, float f) { S(f * 4, b); return 3; }
		int cuOfTheFuture(long *sum, int b, int c, int d, int e, int f, long g, long h, long i, long j,
				  long k, long l, long m, long n, long o, long p, long q, long r)
		{ S(b, c); S(d, e); S(f, g); S(h, i); S(j, k); S(l, m); S(n, o); S(p, q); S(r, 1); return 4; }
		int cuStreamAddCallback(long *sum, back fn, int n) { S(fn(n), n); return 5; }
		int cuGetProcAddress_v2(const char *name, void **fn, int version, unsigned long flags, int *status)
		{ *fn = name[2] == 'O' ? (void *)cuOfTheFuture : 0; if (status) *status = !*fn; return *fn ? 0 : 500; }
	END
	cat >calls.c <<-'END'
		#include <dlfcn.h>
		#include <stdio.h>
		struct handle { char b[64]; };
		static long sum;
		static void *lib;
		#define CALL(name, ...) (((int (*)())dlsym(lib, name))(__VA_ARGS__))
		static int back(int n)
		{ return n ? CALL("cuStreamAddCallback", &sum, back, n - 1) + n : CALL("cuParamSetf", &sum, 3, 0.f); }
		int main(void)
		{
			int (*get)(const char *, void **, int, unsigned long, int *), status;
			int (*set)(long *, int, float), (*future)();
			struct handle h;
			long j = 77;
			lib = dlopen("libcuda.so.1", RTLD_NOW);
			for (int i = 0; i < 64; i++) h.b[i] = (char)(i * 7);
			printf("%d ", CALL("cuLaunchKernel", &sum, 2, 3, 4, 5, 6, 7, 8, 9l, &j, 11l));
			printf("%d ", ((int (*)(long *, struct handle, int))dlsym(lib, "cuIpcOpenMemHandle_v2"))(&sum, h, 5));
			set = (int (*)(long *, int, float))dlsym(lib, "cuParamSetf");
			printf("%d ", set(&sum, 9, 2.25f));
			get = (int (*)(const char *, void **, int, unsigned long, int *))dlsym(lib, "cuGetProcAddress_v2");
			get("cuOfTheFuture", (void **)&future, 99000, 0, &status);
			printf("%d ", future(&sum, 2, 3, 4, 5, 6, 7l, 8l, 9l, 10l, 11l, 12l, 13l, 14l, 15l, 16l, 17l, 18l));
			printf("%d ", CALL("cuStreamAddCallback", &sum, back, 20));
			printf("%ld\n", sum);
			return dlsym(lib, "cuNothing") != 0;
		}
	END
	"${CC:-gcc}" -w -O2 -shared -fPIC -Wl,-soname,libcuda.so.1 -o fake/libcuda.so.1 driver.c
	"${CC:-gcc}" -w -O2 -o calls calls.c
	LD_LIBRARY_PATH=$W/fake ./calls >plain || fail "the program itself"
	LD_LIBRARY_PATH=$W/fake LD_PRELOAD=$AGENT ./calls >agent 2>err || fail "with the agent: $(cat err)"
	cmp plain agent || fail "arguments differ: $(cat plain agent)"
}

# python_app CODE: cu is the driver; a is 4 MiB of its memory, host a buffer. Sets PID.
python_app() {
	cat >app.py <<-END
		import ctypes, os, threading, time
		cu = ctypes.CDLL('libcuda.so.1')
		def must(res):
		    assert res == 0, res
		must(cu.cuInit(0))
		ctx, a = ctypes.c_void_p(), ctypes.c_ulonglong()
		must(cu.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), 0))
		must(cu.cuCtxSetCurrent(ctx))
		must(cu.cuMemAlloc_v2(ctypes.byref(a), ctypes.c_size_t(4 << 20)))
		host = ctypes.create_string_buffer(b'x' * 4096, 4096)
		size = ctypes.c_size_t(4096)
		def done(text):
		    open('report.new', 'w').write(text)
		    os.rename('report.new', 'report')
		${1//$'\t'}
	END
	rm -f ready report
	start_ready "$CKFAST" run -- "$PYTHON" app.py
}

no_end() {
	CKF_STUB_DELAY_US=2000000 python_app "
		open('ready', 'w').close()
		must(cu.cuMemcpyHtoD_v2(a, host, size))
		back = ctypes.create_string_buffer(4096)
		must(cu.cuMemcpyDtoH_v2(back, a, size))
		done('OK' if back.raw == host.raw else 'BAD')
		time.sleep(600)"
	! "$CKFAST" park --timeout 1 "$PID" --dir "$W/parked" 2>err || fail "parked in the middle of a call"
	grep -q "does not come back from cuMemcpy" err || fail "the message names no function: $(cat err)"
	[ ! -e "$W/parked" ] || fail "a park that failed has left $W/parked"
	wait_for 60 test -e report || fail "the program does not get on"
	grep -q OK report || fail "the program says: $(cat report)"
	"$CKFAST" park "$PID" --dir "$W/parked" >/dev/null || fail "park"
	gpu_idle
	"$CKFAST" unpark "$PID" --dir "$W/parked" >/dev/null || fail "unpark"
	stop "$PID"
}

left_locked() {
	python_app "
		open('ready', 'w').close()
		while not os.path.exists('go'):
		    time.sleep(0.01)
		must(cu.cuMemcpyHtoD_v2(a, host, size))
		done('OK')
		time.sleep(600)"
	cuda-checkpoint --pid "$PID" --action lock || fail "lock"
	! "$CKFAST" park "$PID" --dir "$W/parked" 2>err || fail "parked what is locked"
	grep -q unpark err || fail "the message does not say what to do: $(cat err)"
	touch go
	"$CKFAST" unpark "$PID" --dir "$W/parked" >/dev/null || fail "unpark of what is locked"
	wait_for 20 test -e report || fail "it is still locked"
	stop "$PID"
}

cancelled() {
	cat >cancel.c <<-'END'
		#include <dlfcn.h>
		#include <pthread.h>
		#include <stdio.h>
		#include <unistd.h>
		static int (*init)(int), (*retain)(void **, int), (*use)(void *), (*alloc)(unsigned long long *, size_t),
			(*copy)(void *, unsigned long long, size_t);
		static unsigned long long a;
		static void *ctx;
		static void *loop(void *arg)
		{
			char page[4096];
			use(ctx);
			for (;;)
				copy(page, a, 0); /* the stub sleeps, and holds nothing */
			return arg;
		}
		int main(void)
		{
			void *lib = dlopen("libcuda.so.1", RTLD_NOW);
			pthread_t threads[20];
			*(void **)&init = dlsym(lib, "cuInit");
			*(void **)&retain = dlsym(lib, "cuDevicePrimaryCtxRetain");
			*(void **)&use = dlsym(lib, "cuCtxSetCurrent");
			*(void **)&alloc = dlsym(lib, "cuMemAlloc_v2");
			*(void **)&copy = dlsym(lib, "cuMemcpyDtoH_v2");
			if (init(0) || retain(&ctx, 0) || use(ctx) || alloc(&a, 4 << 20))
				return 1;
			for (int i = 0; i < 20; i++)
				pthread_create(&threads[i], NULL, loop, NULL);
			usleep(100000);
			for (int i = 0; i < 20; i++) {
				pthread_cancel(threads[i]);
				pthread_join(threads[i], NULL);
			}
			fclose(fopen("ready", "w"));
			for (;;)
				pause();
		}
	END
	"${CC:-gcc}" -w -O2 -pthread -o cancel cancel.c
	rm -f ready
	CKF_STUB_DELAY_US=20000 start_ready "$CKFAST" run -- ./cancel
	"$CKFAST" park --timeout 5 "$PID" --dir "$W/parked" >/dev/null || fail "park after a cancellation"
	"$CKFAST" unpark "$PID" --dir "$W/parked" >/dev/null || fail "unpark"
	stop "$PID"
}

export PATH=$BUILD/bin:$PATH
arguments
gpud_start
no_end
left_locked
cancelled
gpud_stop
gpu_idle
