// SPDX-License-Identifier: GPL-2.0-only
/* Loads libraries that few restores need: see fast-libs.h. */
#include <dlfcn.h>
#include <sched.h>

#include "common/compiler.h"
#include "cr_options.h"
#include "fast-libs.h"
#include "log.h"
#include "namespaces.h"
#include "util.h"

#undef LOG_PREFIX
#define LOG_PREFIX "fast-libs: "

#define NAME(f) #f,

struct lib {
	const char *name;
	const char *const *functions;
	unsigned int nr;
	void **table; /* a pointer for each function */
	void *handle; /* while it is loaded */
};

#ifdef FAST_LIBS_NFTABLES
static struct nft_ctx *not_loaded(uint32_t flags)
{
	pr_err("libnftables is not loaded\n");
	return NULL;
}

/* The interface changed with the name. */
#ifdef CONFIG_HAS_NFTABLES_LIB_API_0
#define NFTABLES "libnftables.so.0"
#else
#define NFTABLES "libnftables.so.1"
#endif

#undef nft_ctx_new
struct fast_nftables fast_nftables = { .nft_ctx_new = not_loaded };
static const char *const nftables_functions[] = { FAST_LIBS_NFTABLES(NAME) };
static struct lib nftables = { NFTABLES, nftables_functions, ARRAY_SIZE(nftables_functions),
			       (void **)&fast_nftables };
#endif

#ifdef FAST_LIBS_GNUTLS
struct fast_gnutls fast_gnutls;
static const char *const gnutls_functions[] = { FAST_LIBS_GNUTLS(NAME) };
static struct lib gnutls = { "libgnutls.so.30", gnutls_functions, ARRAY_SIZE(gnutls_functions),
			     (void **)&fast_gnutls };
#endif

#if defined(FAST_LIBS_NFTABLES) || defined(FAST_LIBS_GNUTLS)
static int load(struct lib *l)
{
	unsigned int i = 0;
	void *handle;

	if (l->handle)
		return 0;
	handle = dlopen(l->name, RTLD_NOW | RTLD_LOCAL);
	while (handle && i < l->nr && (l->table[i] = dlsym(handle, l->functions[i])))
		i++;
	if (i < l->nr) {
		pr_err("Can't load %s, which has to be installed: %s\n", l->name, dlerror());
		return -1;
	}
	l->handle = handle;
	return 0;
}
#endif

void fast_libs_no_nftables(void)
{
#ifdef FAST_LIBS_NFTABLES
	if (nftables.handle)
		dlclose(nftables.handle);
	nftables.handle = NULL;
	fast_nftables.nft_ctx_new = not_loaded;
#endif
}

int fast_libs_nftables(void)
{
#ifdef FAST_LIBS_NFTABLES
	if (load(&nftables)) {
		/* What has been found of it must not be called by who clears up. */
		fast_libs_no_nftables();
		return -1;
	}
#endif
	return 0;
}

int fast_libs_gnutls(void)
{
#ifdef FAST_LIBS_GNUTLS
	return load(&gnutls);
#else
	return 0;
#endif
}

int fast_libs_for_restore(void)
{
	/* Rules of network namespaces are restored, and the lock of the dump is taken away, in no other case. */
	if (!(root_ns_mask & CLONE_NEWNET) && opts.network_lock_method != NETWORK_LOCK_NFTABLES)
		return 0;
	return fast_libs_nftables();
}
