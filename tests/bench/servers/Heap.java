// SPDX-License-Identifier: MIT
// Heap MIB SOCKET: a heap of small objects; says its sum to whoever connects.
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.ServerSocketChannel;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.Map;

class Heap {
	static long sum(Map<Integer, ArrayList<String>> heap) {
		long sum = 0;

		for (Map.Entry<Integer, ArrayList<String>> e : heap.entrySet())
			for (String s : e.getValue())
				sum = sum * 31 + e.getKey() + s.hashCode();
		return sum;
	}

	public static void main(String[] args) throws Exception {
		Map<Integer, ArrayList<String>> heap = new HashMap<>();
		long words = Long.parseLong(args[0]) * 10000;

		for (long i = 0; i < words; i++)
			heap.computeIfAbsent((int) (i % 65536), k -> new ArrayList<>()).add("word " + i * 7919);
		try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
			server.bind(UnixDomainSocketAddress.of(args[1]));
			for (;;) {
				try (var client = server.accept()) {
					client.write(ByteBuffer.wrap((sum(heap) + "\n").getBytes()));
				}
			}
		}
	}
}
