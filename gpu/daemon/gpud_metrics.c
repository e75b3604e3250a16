/* SPDX-License-Identifier: MIT */
/*
 * What Prometheus is told of a gpud, in its text format. Every counter is there from the start, so
 * that its first increase is seen.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/ckf_threads.h"
#include "base/ckf_uuid.h"
#include "gpud.h"

#define PREFIX "ckfast_gpud_"

static const char *const failure_names[GPUD_FAILURE_KINDS] = {
	"other",     "corrupt",	  "unsupported", "memory",   "no_device",  "device",
	"cancelled", "not_found", "no_space",	 "protocol", "permission", "limit"
};

static const char *const request_names[GPUD_REQUEST_KINDS] = {
	"", "restore", "save", "keep", "restore_amd", "checkpoint"
};

static const char *const refusal_names[GPUD_REFUSAL_KINDS] = { "user", "connections", "requests",
							       "bytes" };

static const char *const drop_names[GPUD_DROP_KINDS] = { "asked", "changed", "room",
							 "memory_short" };

static void family(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

static void counter(FILE *f, const char *name, const char *help, uint64_t value)
{
	family(f, name, "counter", help);
	fprintf(f, PREFIX "%s %" PRIu64 "\n", name, value);
}

static void gauge(FILE *f, const char *name, const char *help, uint64_t value)
{
	family(f, name, "gauge", help);
	fprintf(f, PREFIX "%s %" PRIu64 "\n", name, value);
}

static void seconds(FILE *f, const char *name, const char *type, const char *help, uint64_t ns)
{
	family(f, name, type, help);
	fprintf(f, PREFIX "%s %.9f\n", name, (double)ns / 1e9);
}

static void add_sums(FILE *f, const struct gpud_sum sums[GPUD_REQUEST_KINDS])
{
	const struct gpud_sum *fill = &sums[GPUD_FILLING], *save = &sums[GPUD_SAVING];
	const struct gpud_sum *amd = &sums[GPUD_FILLING_AMD];

	counter(f, "restores_total", "Restores of device memory that succeeded.",
		fill->nr - fill->failed + amd->nr - amd->failed);
	counter(f, "saves_total", "Saves of device memory that succeeded.",
		save->nr - save->failed);
	counter(f, "restored_bytes_total", "Device memory that was restored.",
		fill->bytes + amd->bytes);
	counter(f, "saved_bytes_total", "Device memory that was saved.", save->bytes);
	seconds(f, "restore_seconds_total", "counter", "Time of the restores that succeeded.",
		fill->ns + amd->ns);
	seconds(f, "save_seconds_total", "counter", "Time of the saves that succeeded.", save->ns);
	counter(f, "checkpoint_calls_total", "Checkpoint calls of the driver that succeeded.",
		sums[GPUD_CALLING].nr - sums[GPUD_CALLING].failed);
	family(f, "failures_total", "counter", "Requests that failed.");
	for (int r = GPUD_FILLING; r < GPUD_REQUEST_KINDS; r++)
		for (int k = 0; k < GPUD_FAILURE_KINDS; k++)
			fprintf(f,
				PREFIX "failures_total{request=\"%s\",kind=\"%s\"} %" PRIu64 "\n",
				request_names[r], failure_names[k], sums[r].failures[k]);
}

static void add_clients(FILE *f, const struct gpud_counts *n)
{
	gauge(f, "connections", "Connections of clients.", n->connections);
	family(f, "requests_in_flight", "gauge", "Requests that are under way.");
	for (int r = GPUD_FILLING; r < GPUD_REQUEST_KINDS; r++)
		fprintf(f, PREFIX "requests_in_flight{request=\"%s\"} %u\n", request_names[r],
			n->in_flight[r]);
	family(f, "refused_total", "counter", "Clients and requests that were refused.");
	for (int k = 0; k < GPUD_REFUSAL_KINDS; k++)
		fprintf(f, PREFIX "refused_total{reason=\"%s\"} %" PRIu64 "\n", refusal_names[k],
			n->refused[k]);
}

static void add_slots(FILE *f, struct ckf_cuda_pool *pool)
{
	unsigned int in_use = ckf_cuda_slots_in_use(pool);

	gauge(f, "slots", "Pinned buffers.", pool->nr_slots);
	gauge(f, "slots_free", "Pinned buffers that are free.", pool->nr_slots - in_use);
	gauge(f, "slots_waiting", "Threads that wait for a pinned buffer.",
	      ckf_cuda_slots_waiting(pool));
	gauge(f, "slot_bytes", "Size of a pinned buffer.", pool->slot_bytes);
}

static void add_amd(FILE *f, struct ckf_gpud *g, const struct gpud_sum *sum)
{
	struct ckf_amd_slots slots;
	struct ckf_amd *amd;
	unsigned int nr;

	if (gpud_amd_get(g->amd, &amd, NULL))
		return;
	nr = ckf_amd_nr_gpus(amd);
	slots = ckf_amd_slots(amd);
	gpud_amd_put(g->amd);
	gauge(f, "amd_devices", "AMD GPUs.", nr);
	gauge(f, "amd_slots", "Pinned buffers for AMD GPUs.", slots.total);
	gauge(f, "amd_slots_free", "Pinned buffers for AMD GPUs that are free.",
	      slots.total - slots.in_use);
	family(f, "amd_device_bytes_total", "counter", "Memory of the AMD GPU restored.");
	for (unsigned int i = 0; i < nr && i < GPUD_COUNTED_GPUS; i++)
		fprintf(f, PREFIX "amd_device_bytes_total{device=\"%u\"} %" PRIu64 "\n", i,
			sum->gpu_bytes[i]);
}

static void add_kept(FILE *f, struct ckf_gpud *g)
{
	struct gpud_kept_counts n;

	gpud_kept_count(g->kept, &n);
	gauge(f, "kept_images", "Images that are kept in memory.", n.images);
	gauge(f, "kept_bytes", "Memory of kept images.", n.bytes);
	gauge(f, "kept_limit_bytes", "Most memory of kept images; 0: no limit.",
	      g->opts.keep_bytes);
	counter(f, "kept_hits_total", "Restores from kept images.", n.hits);
	counter(f, "kept_misses_total", "Restores of other images while some are kept.", n.misses);
	counter(f, "kept_reads_total", "Images that were read to be kept.", n.reads);
	counter(f, "kept_failures_total", "Images that could not be kept.", n.failures);
	family(f, "kept_dropped_total", "counter", "Images that are no longer kept.");
	for (int i = 0; i < GPUD_DROP_KINDS; i++)
		fprintf(f, PREFIX "kept_dropped_total{reason=\"%s\"} %" PRIu64 "\n", drop_names[i],
			n.dropped[i]);
}

/* Each sample of a family has to follow the others. */
static void add_devices(FILE *f, struct ckf_cuda_pool *pool,
			const struct gpud_sum sums[GPUD_REQUEST_KINDS])
{
	char uuid[CKF_GPU_UUID_TEXT_BYTES], name[CKF_CUDA_NAME_BYTES];
	uint64_t free_bytes;

	family(f, "device_info", "gauge", "A GPU.");
	for (unsigned int i = 0; i < pool->nr_devs; i++)
		fprintf(f, PREFIX "device_info{device=\"%u\",uuid=\"%s\",name=\"%s\"} 1\n", i,
			ckf_gpu_uuid_text(pool->devs[i].uuid, uuid),
			gpud_plain(pool->devs[i].name, name, sizeof(name)));
	family(f, "device_memory_bytes", "gauge", "Memory of the GPU.");
	for (unsigned int i = 0; i < pool->nr_devs; i++)
		fprintf(f, PREFIX "device_memory_bytes{device=\"%u\"} %" PRIu64 "\n", i,
			pool->devs[i].total_bytes);
	/* Only a context can tell, and asking must not make one. */
	family(f, "device_memory_free_bytes", "gauge", "Free memory of the GPU.");
	for (unsigned int i = 0; i < pool->nr_devs; i++)
		if (ckf_cuda_pool_is_warm(pool, i) &&
		    !ckf_cuda_pool_free_bytes(pool, i, &free_bytes, NULL))
			fprintf(f, PREFIX "device_memory_free_bytes{device=\"%u\"} %" PRIu64 "\n",
				i, free_bytes);
	family(f, "device_bytes_total", "counter", "Memory of the GPU restored and saved.");
	for (int r = GPUD_FILLING; r <= GPUD_SAVING; r++)
		for (unsigned int i = 0; i < pool->nr_devs && i < GPUD_COUNTED_GPUS; i++)
			fprintf(f,
				PREFIX "device_bytes_total{device=\"%u\",request=\"%s\"} %" PRIu64
				       "\n",
				i, request_names[r], sums[r].gpu_bytes[i]);
}

int gpud_metrics(struct ckf_gpud *g, char **text, size_t *len, struct ckf_error *err)
{
	struct gpud_sum sums[GPUD_REQUEST_KINDS];
	struct ckf_cuda_pool *pool;
	struct gpud_counts counts;
	FILE *f;
	int ret;

	*text = NULL;
	ret = gpud_pool_or_none(g, &pool, err);
	if (ret)
		return ret;
	gpud_count(g, sums, &counts);
	f = open_memstream(text, len);
	if (!f)
		return ckf_error_set(err, -ENOMEM, "no memory");
	family(f, "build_info", "gauge", "The version of gpud and of its protocol.");
	fprintf(f, PREFIX "build_info{version=\"%s\",protocol=\"%d\"} 1\n", CKF_VERSION,
		CKF_GPUD_VERSION);
	seconds(f, "uptime_seconds", "gauge", "Time since gpud started.",
		ckf_now_ns() - g->start_ns);
	add_sums(f, sums);
	add_clients(f, &counts);
	if (pool) {
		add_slots(f, pool);
		add_devices(f, pool, sums);
	}
	add_amd(f, g, &sums[GPUD_FILLING_AMD]);
	add_kept(f, g);
	if (!fclose(f))
		return 0;
	free(*text);
	*text = NULL;
	return ckf_error_set(err, -ENOMEM, "no memory");
}
