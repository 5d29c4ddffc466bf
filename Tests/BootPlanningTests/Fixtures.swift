// SPDX-License-Identifier: Apache-2.0
// Lease files as the producers wrote them, for one set of answers: next-server 192.0.2.2, root-path
// `192.0.2.3:10809/foo`, DHCP server 192.0.2.1, domain servers .53 and .54.

import WireFormat

enum Fixtures {
  static let klibc: ByteString = """
    DEVICE='eth0'
    PROTO='dhcp'
    IPV4ADDR='192.0.2.121'
    IPV4BROADCAST='192.0.2.255'
    IPV4NETMASK='255.255.255.0'
    IPV4ROUTE0SUBNET='198.51.100.0/24'
    IPV4ROUTE0GATEWAY='192.0.2.254'
    IPV4ROUTE1SUBNET='0.0.0.0/0'
    IPV4ROUTE1GATEWAY='192.0.2.1'
    IPV4DNS0='192.0.2.53'
    IPV4DNS1='192.0.2.54'
    HOSTNAME='board7'
    DNSDOMAIN='lab.example'
    NISDOMAIN=''
    ROOTSERVER='192.0.2.2'
    ROOTPATH='192.0.2.3:10809/foo'
    filename='pxelinux.0'
    UPTIME='2070'
    DHCPLEASETIME='3600'
    DOMAINSEARCH='lab.example. example.'

    """

  static let pnp: ByteString = """
    #PROTO: DHCP
    domain lab.example
    nameserver 192.0.2.53
    nameserver 192.0.2.54
    bootserver 192.0.2.2

    """

  static let udhcpc: ByteString = """
    broadcast='192.0.2.255'
    dns='192.0.2.53 192.0.2.54'
    domain='lab.example'
    hostname='board7'
    interface='eth0'
    ip='192.0.2.121'
    lease='3600'
    mask='24'
    opt53='05'
    router='192.0.2.1'
    serverid='192.0.2.1'
    siaddr='192.0.2.2'
    subnet='255.255.255.0'
    rootpath='192.0.2.3:10809/foo'
    mtu='1400'
    search='lab.example,example'
    tftp='bootsrv.example'
    staticroutes='198.51.100.0/24 192.0.2.254 0.0.0.0/0 192.0.2.1'

    """

  static let dhclient: ByteString = """
    lease {
      interface "eth0";
      fixed-address 192.0.2.121;
      filename "pxelinux.0";
      server-name "bootsrv.example";
      option root-path "192.0.2.3:10809/foo";
      option subnet-mask 255.255.255.0;
      option routers 192.0.2.1;
      option dhcp-lease-time 3600;
      option dhcp-message-type 5;
      option domain-name-servers 192.0.2.53,192.0.2.54;
      option dhcp-server-identifier 192.0.2.1;
      option domain-search "lab.example.", "example.";
      option interface-mtu 1400;
      option ntp-servers 192.0.2.123;
      option classless-static-routes 24,198,51,100,192,0,2,254,0,192,0,2,1;
      option broadcast-address 192.0.2.255;
      option host-name "board7";
      option domain-name "lab.example";
      renew 6 2026/11/21 08:33:09;
      rebind 6 2026/11/21 09:03:07;
      expire 6 2026/11/21 09:10:37;
    }

    """

  static let dhcpopts: ByteString = """
    new_dhcp_server_identifier=192.0.2.1
    new_domain_name_servers='192.0.2.53 192.0.2.54'
    new_filename=pxelinux.0
    new_interface_mtu=1400
    new_ip_address=192.0.2.128
    new_next_server=192.0.2.2
    new_root_path=192.0.2.3:10809/foo
    new_routers=192.0.2.1
    new_server_name=bootsrv.example
    new_subnet_mask=255.255.255.0

    """

  static let networkManager: ByteString = """
    [device]
    managed=true
    connection-uuid=2b0a
    next-server=192.0.2.2
    root-path=192.0.2.3:10809/foo
    dhcp-bootfile=pxelinux.0

    [dhcp4]
    dhcp4.dhcp_server_identifier=192.0.2.1
    dhcp4.domain_name_servers=192.0.2.53 192.0.2.54
    dhcp4.domain_search=lab.example example
    dhcp4.filename=pxelinux.0
    dhcp4.host_name=board7
    dhcp4.interface_mtu=1400
    dhcp4.ip_address=192.0.2.121
    dhcp4.next_server=192.0.2.2
    dhcp4.root_path=192.0.2.3:10809/foo
    dhcp4.rfc3442_classless_static_routes=198.51.100.0/24 192.0.2.254 0.0.0.0/0 192.0.2.1
    dhcp4.routers=192.0.2.1
    dhcp4.subnet_mask=255.255.255.0
    dhcp4.expiry=99999

    """

  static let networkd: ByteString = """
    # This is private data. Do not parse.
    ADDRESS=192.0.2.121
    NETMASK=255.255.255.0
    ROUTER=192.0.2.1
    SERVER_ADDRESS=192.0.2.1
    NEXT_SERVER=192.0.2.2
    BROADCAST=192.0.2.255
    MTU=1400
    T1=1800
    T2=3150
    LIFETIME=3600
    DNS=192.0.2.53 192.0.2.54
    NTP=192.0.2.123
    DOMAINNAME=lab.example
    HOSTNAME=board7
    ROOT_PATH=192.0.2.3:10809/foo
    CLASSLESS_ROUTES=198.51.100.0/24,192.0.2.254 0.0.0.0/0,192.0.2.1
    CLIENTID=01f65f14579fc5
    OPTION_224=6e62643a2f2f3139322e302e322e352f73697465

    """

  /// A DHCP answer as on the wire. Source: RFC 2131, figure 1.
  static let dhcpcd: ByteString = {
    var packet = [UInt8](repeating: 0, count: 236)
    packet[0] = 2
    packet.replaceSubrange(16..<20, with: [192, 0, 2, 121])
    packet.replaceSubrange(20..<24, with: [192, 0, 2, 2])
    packet.replaceSubrange(44..<59, with: Array("bootsrv.example".utf8))
    packet += [99, 130, 83, 99]
    func option(_ code: UInt8, _ value: [UInt8]) {
      packet += [code, UInt8(value.count)] + value
    }
    option(53, [5])
    option(54, [192, 0, 2, 1])
    option(1, [255, 255, 255, 0])
    option(3, [192, 0, 2, 254])
    option(6, [192, 0, 2, 53, 192, 0, 2, 54])
    option(12, Array("board7".utf8))
    option(15, Array("lab.example".utf8))
    // In two parts, as long options come.
    option(17, Array("192.0.2.3:".utf8))
    option(17, Array("10809/foo".utf8))
    option(26, [0x05, 0x78])
    option(51, [0, 0, 0x0e, 0x10])
    // lab.example, and example as a pointer into it.
    option(119, [3] + Array("lab".utf8) + [7] + Array("example".utf8) + [0, 0xc0, 4])
    option(121, [24, 198, 51, 100, 192, 0, 2, 254, 0, 192, 0, 2, 1])
    packet.append(255)
    return ByteString(packet)
  }()
}
