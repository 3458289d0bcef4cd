//! Domain XML as libvirt writes it, cut down to what a console gateway could trip over.

/// A domain of a test.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) name: String,
    pub(crate) id: String,
    running: bool,
    graphics: Vec<String>,
    metadata: String,
}

impl Domain {
    /// A running domain with a random UUID and no display yet.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            running: true,
            graphics: Vec::new(),
            metadata: String::new(),
        }
    }

    /// Adds a VNC display on a TCP port of the loopback.
    pub(crate) fn vnc(self, port: u16) -> Self {
        self.graphics(&format!(
            "<graphics type='vnc' port='{port}' autoport='yes' listen='127.0.0.1'>\
             <listen type='address' address='127.0.0.1'/></graphics>"
        ))
    }

    /// Adds a VNC display on a Unix socket.
    pub(crate) fn vnc_socket(self, path: &str) -> Self {
        self.graphics(&format!(
            "<graphics type='vnc' socket='{path}'><listen type='socket' socket='{path}'/></graphics>"
        ))
    }

    /// Adds what Nova writes of a server: its name, flavor, and project.
    pub(crate) fn of_nova(mut self, shown: &str, project: &str) -> Self {
        self.metadata = of_nova(shown, project);
        self
    }

    /// Adds a display in libvirt's own words.
    pub(crate) fn graphics(mut self, element: &str) -> Self {
        self.graphics.push(element.to_owned());
        self
    }

    /// The same domain as `virsh dumpxml` shows it when it does not run.
    pub(crate) fn off(mut self) -> Self {
        self.running = false;
        self.graphics.clear();
        self.graphics("<graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'/>")
    }

    /// As `virsh dumpxml` prints it.
    pub(crate) fn dump(&self) -> String {
        let id = if self.running { " id='7'" } else { "" };
        let Self {
            name,
            id: uuid,
            graphics,
            metadata,
            ..
        } = self;
        let displays = graphics.concat();
        format!(
            "<domain type='qemu'{id}>\n  <name>{name}</name>\n  <uuid>{uuid}</uuid>\n  {metadata}\n  \
             <memory unit='KiB'>32768</memory>\n  <os><type arch='x86_64'>hvm</type></os>\n  \
             <devices>\n    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n    {displays}\n    \
             <video><model type='vga'/></video>\n  </devices>\n</domain>\n"
        )
    }

    /// As libvirt keeps it under `/run/libvirt/qemu` while it runs.
    pub(crate) fn status(&self) -> String {
        format!(
            "<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n\n\
             <domstatus state='running' reason='booted' pid='4242'>\n  \
             <monitor path='/nowhere/monitor.sock' type='unix'/>\n{}</domstatus>\n",
            self.dump()
        )
    }
}

/// What Nova writes into the XML of a server: its name, flavor, and project.
pub(crate) fn of_nova(shown: &str, project: &str) -> String {
    format!(
        "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
         <nova:name>{shown}</nova:name><nova:flavor name='m1.small'/><nova:owner>\
         <nova:user uuid='{}'>u</nova:user><nova:project uuid='{project}'>p</nova:project>\
         </nova:owner></nova:instance></metadata>",
        "0".repeat(32)
    )
}
