/* SPDX-License-Identifier: MIT */
/* The progress bar, on a terminal only, and the request to stop. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ckf_cli.h"

#define REDRAW_NS 100000000u
#define BAR_CELLS 24

static volatile sig_atomic_t stop_signal;

void cli_progress_start(struct cli_progress *p, bool quiet)
{
	p->on = !quiet && isatty(STDERR_FILENO);
	p->start_ns = cli_now_ns();
	p->last_ns = p->start_ns;
}

void cli_progress_draw(struct cli_progress *p, uint64_t done_bytes, uint64_t total_bytes,
		       uint64_t stored_bytes)
{
	char done[CLI_BYTES_LEN], total[CLI_BYTES_LEN], ratio[32] = "";
	char bar[BAR_CELLS + 1];
	uint64_t now_ns, left_s;
	double part, rate;

	if (!p->on || !total_bytes)
		return;
	now_ns = cli_now_ns();
	if (now_ns - p->last_ns < REDRAW_NS)
		return;
	p->last_ns = now_ns;
	if (done_bytes > total_bytes)
		done_bytes = total_bytes;
	part = (double)done_bytes / (double)total_bytes;
	/* Bytes per ns is GB per s. */
	rate = (double)done_bytes / (double)(now_ns - p->start_ns);
	left_s = rate > 0 ? (uint64_t)((double)(total_bytes - done_bytes) / rate / 1e9) : 0;
	if (stored_bytes)
		snprintf(ratio, sizeof(ratio), "  ratio %.2f",
			 (double)done_bytes / (double)stored_bytes);
	memset(bar, '.', BAR_CELLS);
	memset(bar, '#', (size_t)(part * BAR_CELLS));
	bar[BAR_CELLS] = 0;
	fprintf(stderr,
		"\r\033[K[%s] %3.0f %%  %s of %s  %.2f GB/s%s  %" PRIu64 ":%02" PRIu64 " left", bar,
		part * 100, cli_bytes(done_bytes, done), cli_bytes(total_bytes, total), rate, ratio,
		left_s / 60, left_s % 60);
}

void cli_progress_clear(struct cli_progress *p)
{
	if (p->on)
		fputs("\r\033[K", stderr);
}

static void on_signal(int sig)
{
	stop_signal = sig;
}

void cli_stop_catch(void)
{
	struct sigaction sa = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

int cli_stop_asked(void *arg)
{
	(void)arg;
	return stop_signal;
}

void cli_progress_show(void *arg, const struct ckf_progress *p)
{
	cli_progress_draw(arg, p->done_bytes, p->total_bytes, p->stored_bytes);
}

static void on_progress(void *arg, const struct ckf_progress *p)
{
	struct cli_ui *ui = arg;

	cli_progress_show(&ui->progress, p);
}

static void on_warning(void *arg, const char *msg)
{
	struct cli_ui *ui = arg;

	if (ui->quiet)
		return;
	cli_progress_clear(&ui->progress);
	cli_message(ui->verb, ui->path, msg);
}

void cli_ui_start(struct cli_ui *ui, struct ckf_convert_opts *opts)
{
	opts->progress = on_progress;
	opts->warn = on_warning;
	opts->stop = cli_stop_asked;
	opts->arg = ui;
	cli_stop_catch();
	cli_progress_start(&ui->progress, ui->quiet);
}
