/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Libraries that most restores do without: libnftables and GnuTLS. With what they need they have a quarter
 * of criu's mappings, which each task copies and unmaps, and half of the time that criu takes to start.
 *
 * Who includes this calls their functions by their names, through tables, once the library is loaded. That
 * must be while criu sees the root directory and the mounts that it began with: never a library of a
 * container. Until then nft_ctx_new() fails, and nothing else may be called.
 */
#ifndef __CR_FAST_LIBS_H__
#define __CR_FAST_LIBS_H__

/* Both may be called again and again. -1 if the library, or a function of it, is not there. */
extern int fast_libs_nftables(void);
extern int fast_libs_gnutls(void);
/* Unloads it. */
extern void fast_libs_no_nftables(void);
/* libnftables, if this restore is going to need it. */
extern int fast_libs_for_restore(void);

#define FAST_LIBS_POINTER(f) typeof(f) *f;

#if defined(CONFIG_HAS_NFTABLES_LIB_API_0) || defined(CONFIG_HAS_NFTABLES_LIB_API_1)
#include <nftables/libnftables.h>

#define FAST_LIBS_NFTABLES(F)					\
	F(nft_ctx_new)						\
	F(nft_ctx_free)						\
	F(nft_ctx_set_output)					\
	F(nft_ctx_set_error)					\
	F(nft_ctx_buffer_output)				\
	F(nft_ctx_buffer_error)					\
	F(nft_ctx_get_error_buffer)				\
	F(nft_run_cmd_from_buffer)

struct fast_nftables {
	FAST_LIBS_NFTABLES(FAST_LIBS_POINTER)
};
extern struct fast_nftables fast_nftables;

#define nft_ctx_new		 fast_nftables.nft_ctx_new
#define nft_ctx_free		 fast_nftables.nft_ctx_free
#define nft_ctx_set_output	 fast_nftables.nft_ctx_set_output
#define nft_ctx_set_error	 fast_nftables.nft_ctx_set_error
#define nft_ctx_buffer_output	 fast_nftables.nft_ctx_buffer_output
#define nft_ctx_buffer_error	 fast_nftables.nft_ctx_buffer_error
#define nft_ctx_get_error_buffer fast_nftables.nft_ctx_get_error_buffer
#define nft_run_cmd_from_buffer	 fast_nftables.nft_run_cmd_from_buffer
#endif

#ifdef CONFIG_GNUTLS
#include <gnutls/gnutls.h>

#define FAST_LIBS_GNUTLS(F)					\
	F(gnutls_bye)						\
	F(gnutls_certificate_allocate_credentials)		\
	F(gnutls_certificate_free_credentials)			\
	F(gnutls_certificate_send_x509_rdn_sequence)		\
	F(gnutls_certificate_server_set_request)		\
	F(gnutls_certificate_set_x509_crl_file)			\
	F(gnutls_certificate_set_x509_key_file)			\
	F(gnutls_certificate_set_x509_system_trust)		\
	F(gnutls_certificate_set_x509_trust_file)		\
	F(gnutls_certificate_type_get)				\
	F(gnutls_certificate_verification_status_print)		\
	F(gnutls_certificate_verify_peers3)			\
	F(gnutls_credentials_set)				\
	F(gnutls_deinit)					\
	F(gnutls_error_is_fatal)				\
	F(gnutls_free)						\
	F(gnutls_handshake)					\
	F(gnutls_init)						\
	F(gnutls_packet_deinit)					\
	F(gnutls_packet_get)					\
	F(gnutls_record_check_pending)				\
	F(gnutls_record_recv)					\
	F(gnutls_record_recv_packet)				\
	F(gnutls_record_send)					\
	F(gnutls_set_default_priority)				\
	F(gnutls_strerror)					\
	F(gnutls_transport_set_ptr)				\
	F(gnutls_transport_set_pull_function)			\
	F(gnutls_transport_set_push_function)

struct fast_gnutls {
	FAST_LIBS_GNUTLS(FAST_LIBS_POINTER)
};
extern struct fast_gnutls fast_gnutls;

#define gnutls_bye					fast_gnutls.gnutls_bye
#define gnutls_certificate_allocate_credentials		fast_gnutls.gnutls_certificate_allocate_credentials
#define gnutls_certificate_free_credentials		fast_gnutls.gnutls_certificate_free_credentials
#define gnutls_certificate_send_x509_rdn_sequence	fast_gnutls.gnutls_certificate_send_x509_rdn_sequence
#define gnutls_certificate_server_set_request		fast_gnutls.gnutls_certificate_server_set_request
#define gnutls_certificate_set_x509_crl_file		fast_gnutls.gnutls_certificate_set_x509_crl_file
#define gnutls_certificate_set_x509_key_file		fast_gnutls.gnutls_certificate_set_x509_key_file
#define gnutls_certificate_set_x509_system_trust	fast_gnutls.gnutls_certificate_set_x509_system_trust
#define gnutls_certificate_set_x509_trust_file		fast_gnutls.gnutls_certificate_set_x509_trust_file
#define gnutls_certificate_type_get			fast_gnutls.gnutls_certificate_type_get
#define gnutls_certificate_verification_status_print	fast_gnutls.gnutls_certificate_verification_status_print
#define gnutls_certificate_verify_peers3		fast_gnutls.gnutls_certificate_verify_peers3
#define gnutls_credentials_set				fast_gnutls.gnutls_credentials_set
#define gnutls_deinit					fast_gnutls.gnutls_deinit
#define gnutls_error_is_fatal				fast_gnutls.gnutls_error_is_fatal
#define gnutls_free					(*fast_gnutls.gnutls_free)
#define gnutls_handshake				fast_gnutls.gnutls_handshake
#define gnutls_init					fast_gnutls.gnutls_init
#define gnutls_packet_deinit				fast_gnutls.gnutls_packet_deinit
#define gnutls_packet_get				fast_gnutls.gnutls_packet_get
#define gnutls_record_check_pending			fast_gnutls.gnutls_record_check_pending
#define gnutls_record_recv				fast_gnutls.gnutls_record_recv
#define gnutls_record_recv_packet			fast_gnutls.gnutls_record_recv_packet
#define gnutls_record_send				fast_gnutls.gnutls_record_send
#define gnutls_set_default_priority			fast_gnutls.gnutls_set_default_priority
#define gnutls_strerror					fast_gnutls.gnutls_strerror
#define gnutls_transport_set_ptr			fast_gnutls.gnutls_transport_set_ptr
#define gnutls_transport_set_pull_function		fast_gnutls.gnutls_transport_set_pull_function
#define gnutls_transport_set_push_function		fast_gnutls.gnutls_transport_set_push_function
#endif

#endif
